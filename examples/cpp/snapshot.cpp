// Record, take a snapshot, go on, compare: RAII over the function table.
//
//   c++ -std=c++17 snapshot.cpp $(python3-config --includes) -I"$LBRCORE_INCLUDE"
//       $(python3-config --embed --ldflags)

#include "lbr.hpp"

#include <iostream>

namespace {

lbr_config offered() {
    lbr_config config{};
    config.flavour = LBR_ARCHITECTURAL;
    config.depth_bitmap = 0x0F;  // 8, 16, 24, 32
    config.linear_width = 48;
    config.ctl_mask = 0x7F000F;
    config.info_mask = 0xFF0000000000FFFF;
    return config;
}

lbr_branch near(uint64_t from, uint64_t to, lbr_class cls) {
    lbr_branch branch{};
    branch.from = from;
    branch.to = to;
    branch.cycles = branch.instructions = 1;
    branch.cls = static_cast<uint8_t>(cls);
    branch.cpl_from = branch.cpl_to = 3;
    return branch;
}

int run() {
    const lbr::Library library;
    lbr::Facility facility(library, offered());
    facility.depth(8);
    facility.control(0x38000D);  // USR, call-stack mode, calls and returns
    for (uint64_t i = 0; i < 3; ++i)
        facility.record(near(0x401000 + 16 * i, 0x402000 + 16 * i, LBR_NEAR_REL_CALL));

    const lbr::Facility snapshot = facility;
    facility.record(near(0x402100, 0x401025, LBR_NEAR_RET));
    std::cout << "before " << snapshot.records().size() << ", after a return "
              << facility.records().size() << '\n';

    try {
        facility.control(0x80);
    } catch (const lbr::GeneralProtection& fault) {
        std::cout << "#GP: " << fault.what() << '\n';
    }
    const lbr::Facility moved = std::move(facility);
    std::cout << std::hex << "newest 0x" << moved.records().front().from << '\n';
    return 0;
}

}  // namespace

int main() {
    Py_InitializeEx(0);
    int code = 1;
    try {
        code = run();
    } catch (const std::exception& error) {
        std::cerr << "snapshot: " << error.what() << '\n';
    }
    Py_Finalize();
    return code;
}
