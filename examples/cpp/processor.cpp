// c++ -std=c++17 processor.cpp $(pkg-config --cflags --libs lbrcore)
#include <iostream>

#include "cpu.hpp"

int main() {
    lbr::cpu cpu("alder-lake-p");
    if (auto fault = cpu.wrmsr(0x14CE, 1ull << 40))
        std::cout << "#GP: " << fault->rule << "\n";
    cpu.wrmsr(0x14CE, 0x7F0007);
    for (std::uint64_t i = 1; i <= 5; i++) {
        lbr_branch taken{};
        taken.from = 0x401000 + i, taken.to = 0x402000 + i, taken.cls = LBR_NEAR_REL_CALL;
        taken.cpl_from = taken.cpl_to = 3;
        cpu.branch(taken);
    }
    lbr::cpu snapshot = cpu;
    cpu.wrmsr(0x14CF, 16); // IA32_LBR_DEPTH: zeroes the records
    std::cout << std::hex << "before " << snapshot.records().size() << " " << snapshot.records()[0].from
              << ", after " << cpu.records().size() << " " << cpu.records()[0].from << "\n";
    std::cout << "rdmsr " << std::get<std::uint64_t>(snapshot.rdmsr(0x1501)) << "\n";
    std::cout << (std::holds_alternative<lbr::gp>(cpu.rdmsr(0x1510)) ? "#GP beyond the depth\n" : "?\n");
    try {
        lbr::cpu none("i386");
    } catch (const std::runtime_error &error) {
        std::cout << error.what() << "\n";
    }
}
