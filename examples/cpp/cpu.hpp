// lbr_cpu for C++17: RAII, a #GP as a value, other failures as exceptions.
#pragma once
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include <lbrcore_cpu.h>

namespace lbr {

struct gp {
    std::string rule;
    std::uint64_t bits;
};

class cpu {
  public:
    explicit cpu(const std::string &model) {
        lbr_cpu *made = nullptr;
        check(lbr_cpu_new(&made, model.c_str()));
        at_.reset(made);
    }
    cpu(const cpu &other) : cpu(std::string(other.at_->model->name)) { *this = other; }
    cpu(cpu &&) = default;
    cpu &operator=(cpu &&) = default;
    cpu &operator=(const cpu &other) {
        check(lbr_cpu_copy(at_.get(), other.at_.get()));
        return *this;
    }

    std::variant<std::uint64_t, gp> rdmsr(std::uint32_t index) const {
        std::uint64_t value;
        lbr_fault fault;
        if (check(lbr_rdmsr(at_.get(), index, &value, &fault)) == LBR_GP)
            return gp{fault.rule, fault.bits};
        return value;
    }
    // nullptr: written
    std::unique_ptr<gp> wrmsr(std::uint32_t index, std::uint64_t value) {
        lbr_fault fault;
        if (check(lbr_wrmsr(at_.get(), index, value, &fault)) == LBR_GP)
            return std::make_unique<gp>(gp{fault.rule, fault.bits});
        return nullptr;
    }
    // true: inject a PMI
    bool branch(const lbr_branch &branch) {
        return check(lbr_cpu_branch(at_.get(), &branch)) == LBR_PMI;
    }
    std::vector<lbr_entry> records() const {
        std::vector<lbr_entry> out(LBR_MAX_DEPTH);
        out.resize(lbr_cpu_records(at_.get(), out.data()));
        return out;
    }

  private:
    static int check(int result) {
        if (result < 0 && result != LBR_GP) throw std::runtime_error(lbr_strerror(result));
        return result;
    }
    struct destroy {
        void operator()(lbr_cpu *at) const { lbr_cpu_destroy(at); }
    };
    std::unique_ptr<lbr_cpu, destroy> at_;
};

} // namespace lbr
