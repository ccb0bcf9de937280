// A processor with last-branch records, from Go by cgo.
//
//	CGO_CFLAGS=$(pkg-config --cflags lbrcore) CGO_LDFLAGS=$(pkg-config --libs lbrcore) go run main.go
package main

// #include <stdlib.h>
// #include <lbrcore_cpu.h>
import "C"

import (
	"fmt"
	"os"
	"unsafe"
)

func must(result C.int) C.int {
	if result < 0 {
		fmt.Fprintln(os.Stderr, C.GoString(C.lbr_strerror(result)))
		os.Exit(1)
	}
	return result
}

func main() {
	name := C.CString("sapphire-rapids")
	defer C.free(unsafe.Pointer(name))
	var cpu *C.lbr_cpu
	must(C.lbr_cpu_open(&cpu, name, 0, C.LBRCORE_ABI_VERSION))
	defer C.lbr_cpu_destroy(cpu)

	var fault C.lbr_fault
	if C.lbr_wrmsr(cpu, 0x14CE, 1<<40, &fault) == C.LBR_GP {
		fmt.Printf("#GP: %s (%#x)\n", C.GoString(fault.rule), uint64(fault.bits))
	}
	must(C.lbr_wrmsr(cpu, 0x14CE, 0x7F0007, nil)) // IA32_LBR_CTL
	for i := C.uint64_t(1); i <= 40; i++ {
		branch := C.lbr_branch{from: 0x401000 + i, to: 0x402000 + i, cls: C.LBR_COND}
		must(C.lbr_cpu_branch(cpu, &branch))
	}
	var entries [C.LBR_MAX_DEPTH]C.lbr_entry
	count := C.lbr_cpu_records(cpu, &entries[0])
	fmt.Printf("%d records, newest %#x -> %#x, oldest %#x\n", count, uint64(entries[0].from),
		uint64(entries[0].to), uint64(entries[count-1].from))
}
