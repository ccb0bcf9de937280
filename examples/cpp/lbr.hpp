// RAII over lbrcore's function table, for C++17 emulators.
#pragma once

#include <Python.h>

#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#include "lbrcore.h"

namespace lbr {

// The guest's #GP(0): deliver it, do not report it.
struct GeneralProtection : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The table.  Constructed once, while Python is initialised; used by any thread after that.
class Library {
public:
    Library() : table_(lbrcore_import()) {
        if (!table_) {
            PyErr_Print();
            throw std::runtime_error("lbrcore cannot be imported");
        }
    }
    const lbrcore_api* operator->() const { return table_; }

private:
    const lbrcore_api* table_;
};

// One logical processor's facility.  Copying copies the records: a snapshot.
class Facility {
public:
    Facility(const Library& library, const lbr_config& config)
        : library_(&library), state_(library->create(&config)) {
        if (!state_) throw std::invalid_argument("no processor has this lbr_config");
    }
    Facility(const Facility& other) : library_(other.library_), state_(clone(other)) {}
    Facility(Facility&& other) noexcept
        : library_(other.library_), state_(std::exchange(other.state_, nullptr)) {}
    Facility& operator=(Facility other) noexcept {
        std::swap(state_, other.state_);
        std::swap(library_, other.library_);
        return *this;
    }
    ~Facility() {
        if (state_) (*library_)->destroy(state_);
    }

    void control(uint64_t ctl) {
        if ((*library_)->write_ctl(state_, ctl) == LBR_GP)
            throw GeneralProtection("IA32_LBR_CTL: reserved bits");
    }
    void depth(uint64_t depth) {
        if ((*library_)->write_depth(state_, depth) == LBR_GP)
            throw GeneralProtection("IA32_LBR_DEPTH: not offered");
    }
    void record(const lbr_branch& branch) {
        if ((*library_)->record(state_, &branch) != LBR_OK)
            throw std::invalid_argument("lbr_branch: class, flags or CPL out of range");
    }
    // Newest first, without the empty entries at the end.
    std::vector<lbr_entry> records() const {
        std::vector<lbr_entry> entries(LBR_MAX_DEPTH);
        entries.resize((*library_)->read_records(state_, entries.data()));
        while (!entries.empty() && !entries.back().from && !entries.back().to) entries.pop_back();
        return entries;
    }

private:
    static lbr_state* clone(const Facility& other) {
        lbr_state* state = (*other.library_)->create(&other.state_->config);
        if (!state) throw std::bad_alloc();
        (*other.library_)->copy(state, other.state_);
        return state;
    }

    const Library* library_;
    lbr_state* state_;
};

}  // namespace lbr
