//! The functions of liblbrcore as C declares them, checked by hand against `lbrcore.h` and
//! `lbrcore_cpu.h`; the test below compares the structures' sizes with the library's own.

#![allow(non_camel_case_types)]

use std::os::raw::{c_char, c_int, c_void};

pub const LBRCORE_ABI_VERSION: u32 = 1;
pub const LBR_MAX_DEPTH: usize = 32;
pub const LBR_STATE_MAX: usize = 4096;

pub const LBR_PMI: c_int = 1;
pub const LBR_OK: c_int = 0;
pub const LBR_EINVAL: c_int = -1;
pub const LBR_GP: c_int = -2;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct lbr_branch {
    pub from: u64,
    pub to: u64,
    pub cycles: u32,
    pub instructions: u32,
    pub cls: u8,
    pub flags: u8,
    pub cpl_from: u8,
    pub cpl_to: u8,
    pub events: [u8; 4],
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct lbr_entry {
    pub from: u64,
    pub to: u64,
    pub info: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct lbr_config {
    pub flavour: u8,
    pub depth_bitmap: u8,
    pub depth: u8,
    pub linear_width: u8,
    pub event_counters: u8,
    pub quirks: u8,
    pub reserved: [u8; 2],
    pub ctl_mask: u64,
    pub info_mask: u64,
}

#[repr(C)]
pub struct lbr_fault {
    pub rule: *const c_char,
    pub bits: u64,
}

/// The head of the library's table: what it was compiled with.
#[repr(C)]
pub struct lbrcore_api {
    pub abi_version: u32,
    pub struct_size: u32,
    pub branch_size: u32,
    pub entry_size: u32,
    pub config_size: u32,
    pub state_size: u32,
}

/// Opaque.
#[repr(C)]
pub struct lbr_state {
    _private: [u8; 0],
}

/// Opaque.
#[repr(C)]
pub struct lbr_cpu {
    _private: [u8; 0],
}

extern "C" {
    pub fn lbr_api() -> *const lbrcore_api;
    pub fn lbr_strerror(result: c_int) -> *const c_char;

    pub fn lbr_open(
        state: *mut *mut lbr_state, config: *const lbr_config, config_size: usize, abi_version: u32,
    ) -> c_int;
    pub fn lbr_destroy(state: *mut lbr_state);
    pub fn lbr_copy(target: *mut lbr_state, source: *const lbr_state) -> c_int;
    pub fn lbr_record(state: *mut lbr_state, branch: *const lbr_branch) -> c_int;
    pub fn lbr_kind(cls: u8, flags: u8, cpl_from: u8, cpl_to: u8) -> u64;
    pub fn lbr_record_kind(
        state: *mut lbr_state,
        from: u64,
        to: u64,
        cycles: u32,
        kind: u64,
    ) -> c_int;
    pub fn lbr_record_kinds(
        state: *mut lbr_state,
        from: *const u64,
        to: *const u64,
        cycles: *const u32,
        kind: *const u64,
        count: usize,
    ) -> c_int;
    pub fn lbr_hold(state: *const lbr_state) -> u64;
    pub fn lbr_record_held(
        state: *mut lbr_state,
        held: u64,
        from: u64,
        to: u64,
        cycles: u32,
        kind: u64,
    ) -> u64;
    pub fn lbr_release(state: *mut lbr_state, held: u64) -> c_int;
    pub fn lbr_record_batch(
        state: *mut lbr_state, branches: *const lbr_branch, count: usize,
    ) -> c_int;
    pub fn lbr_write_ctl(state: *mut lbr_state, value: u64) -> c_int;
    pub fn lbr_write_depth(state: *mut lbr_state, value: u64) -> c_int;
    pub fn lbr_set_frozen(state: *mut lbr_state, frozen: c_int) -> c_int;
    pub fn lbr_read_records(state: *const lbr_state, entries: *mut lbr_entry) -> u32;

    /// `cpu_size` 0: the processor is reached by functions only.
    pub fn lbr_cpu_open(
        cpu: *mut *mut lbr_cpu, name: *const c_char, cpu_size: usize, abi_version: u32,
    ) -> c_int;
    pub fn lbr_cpu_destroy(cpu: *mut lbr_cpu);
    pub fn lbr_rdmsr(
        cpu: *const lbr_cpu, index: u32, value: *mut u64, fault: *mut lbr_fault,
    ) -> c_int;
    pub fn lbr_wrmsr(cpu: *mut lbr_cpu, index: u32, value: u64, fault: *mut lbr_fault) -> c_int;
    pub fn lbr_cpuid(cpu: *const lbr_cpu, leaf: u32, subleaf: u32, registers: *mut u32) -> c_int;
    pub fn lbr_cpu_branch(cpu: *mut lbr_cpu, branch: *const lbr_branch) -> c_int;
    pub fn lbr_cpu_record(
        cpu: *mut lbr_cpu, branches: *const lbr_branch, count: usize, taken: *mut usize,
    ) -> c_int;
    pub fn lbr_cpu_retire(
        cpu: *mut lbr_cpu, instructions: u32, cycles: u32, cpl: c_int,
    ) -> c_int;
    pub fn lbr_cpu_records(cpu: *const lbr_cpu, entries: *mut lbr_entry) -> u32;
    pub fn lbr_cpu_debug_exception(cpu: *mut lbr_cpu) -> c_int;
    pub fn lbr_cpu_reset(cpu: *mut lbr_cpu, warm: c_int, in_c6: c_int) -> c_int;
    pub fn lbr_cpu_save(
        cpu: *const lbr_cpu, data: *mut c_void, size: usize, used: *mut usize,
    ) -> c_int;
    pub fn lbr_cpu_load(cpu: *mut lbr_cpu, data: *const c_void, size: usize) -> c_int;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{align_of, size_of};

    #[test]
    fn the_structures_are_as_large_as_the_library_has_them() {
        let api = unsafe { &*lbr_api() };
        assert_eq!(api.abi_version, LBRCORE_ABI_VERSION);
        assert_eq!(api.branch_size as usize, size_of::<lbr_branch>());
        assert_eq!(api.entry_size as usize, size_of::<lbr_entry>());
        assert_eq!(api.config_size as usize, size_of::<lbr_config>());
        assert_eq!(align_of::<lbr_branch>(), 8);
    }
}
