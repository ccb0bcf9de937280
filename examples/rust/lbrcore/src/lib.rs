//! A logical processor with last-branch records, for emulators and VMMs in Rust.
//!
//! ```
//! use lbrcore::{Branch, Class, Cpu};
//! let mut cpu = Cpu::new("sapphire-rapids")?;
//! cpu.wrmsr(0x14CE, 0x7F0007)?; // IA32_LBR_CTL
//! cpu.branch(&Branch::new(0x401000, 0x402000, Class::NearRelCall))?;
//! assert_eq!(cpu.rdmsr(0x1500)?, 0x401000); // IA32_LBR_0_FROM_IP
//! # Ok::<(), lbrcore::Error>(())
//! ```
use std::ffi::{CStr, CString};
use std::{fmt, ptr};

use lbrcore_sys as sys;

pub use sys::lbr_entry as Entry;

/// What a branch is: BR_TYPE in the low codes, the members of OTHER_BRANCH told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    Cond = 0,
    NearIndJmp = 1,
    NearRelJmp = 2,
    NearIndCall = 3,
    NearRelCall = 4,
    NearRet = 5,
    NotTaken = 6,
    ZeroCall = 7,
    FarBranch = 8,
    Syscall = 9,
    Sysret = 10,
    Iret = 11,
    Interrupt = 12,
    Exception = 13,
    SoftInt = 14,
    TsxAbort = 15,
}

/// One retired branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Branch(sys::lbr_branch);

impl Branch {
    /// A branch at CPL 3, of one instruction and one cycle.
    pub fn new(from: u64, to: u64, class: Class) -> Branch {
        Branch(sys::lbr_branch {
            from, to, cycles: 1, instructions: 1, cls: class as u8, cpl_from: 3, cpl_to: 3,
            ..Default::default()
        })
    }

    /// Privilege levels before and after, 0 to 3.
    pub fn cpl(mut self, from: u8, to: u8) -> Branch {
        assert!(from < 4 && to < 4, "a privilege level is 0 to 3");
        (self.0.cpl_from, self.0.cpl_to) = (from, to);
        self
    }

    /// Cycles and instructions since the previous branch.
    pub fn since(mut self, cycles: u32, instructions: u32) -> Branch {
        (self.0.cycles, self.0.instructions) = (cycles, instructions);
        self
    }

    pub fn mispredicted(mut self) -> Branch {
        self.0.flags |= 4;
        self
    }
}

/// Why a call did nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The guest's #GP(0): the rule, and the offending bits of the value.
    GeneralProtection { rule: &'static str, bits: u64 },
    /// Any other result of the library, with its text.
    Library { code: i32, text: &'static str },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::GeneralProtection { rule, bits } => write!(f, "#GP: {rule} ({bits:#x})"),
            Error::Library { text, .. } => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

/// Whether a performance-monitoring interrupt is to be injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pmi {
    None,
    Raised,
}

fn text(at: *const std::os::raw::c_char) -> &'static str {
    // The library's texts are constants of it, in ASCII.
    unsafe { CStr::from_ptr(at) }.to_str().unwrap_or("")
}

fn check(code: i32) -> Result<Pmi, Error> {
    match code {
        sys::LBR_OK => Ok(Pmi::None),
        sys::LBR_PMI => Ok(Pmi::Raised),
        _ => Err(Error::Library { code, text: text(unsafe { sys::lbr_strerror(code) }) }),
    }
}

fn access(code: i32, fault: &sys::lbr_fault) -> Result<(), Error> {
    if code == sys::LBR_GP {
        return Err(Error::GeneralProtection { rule: text(fault.rule), bits: fault.bits });
    }
    check(code).map(|_| ())
}

/// A logical processor of a named model, as far as LBRs go.
pub struct Cpu(*mut sys::lbr_cpu);

// Nothing in the library is tied to a thread; `&mut` keeps two of them out.
unsafe impl Send for Cpu {}

impl Cpu {
    /// Fails for a model that is not known.
    pub fn new(model: &str) -> Result<Cpu, Error> {
        let name = CString::new(model).unwrap_or_default();
        let mut cpu = ptr::null_mut();
        let result = unsafe {
            sys::lbr_cpu_open(&mut cpu, name.as_ptr(), 0, sys::LBRCORE_ABI_VERSION)
        };
        check(result).map(|_| ())?;
        Ok(Cpu(cpu))
    }

    pub fn rdmsr(&self, index: u32) -> Result<u64, Error> {
        let (mut value, mut fault) = (0, sys::lbr_fault { rule: ptr::null(), bits: 0 });
        let code = unsafe { sys::lbr_rdmsr(self.0, index, &mut value, &mut fault) };
        access(code, &fault).map(|()| value)
    }

    pub fn wrmsr(&mut self, index: u32, value: u64) -> Result<(), Error> {
        let mut fault = sys::lbr_fault { rule: ptr::null(), bits: 0 };
        let code = unsafe { sys::lbr_wrmsr(self.0, index, value, &mut fault) };
        access(code, &fault)
    }

    /// EAX, EBX, ECX, EDX.
    pub fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let mut out = [0; 4];
        unsafe { sys::lbr_cpuid(self.0, leaf, subleaf, out.as_mut_ptr()) };
        out
    }

    pub fn branch(&mut self, branch: &Branch) -> Result<Pmi, Error> {
        check(unsafe { sys::lbr_cpu_branch(self.0, &branch.0) })
    }

    /// Branches, oldest first, up to the first that raises a PMI; how many were taken.
    pub fn record(&mut self, branches: &[Branch]) -> Result<(usize, Pmi), Error> {
        let mut taken = 0;
        let at = branches.as_ptr().cast();
        let pmi = check(unsafe { sys::lbr_cpu_record(self.0, at, branches.len(), &mut taken) })?;
        Ok((taken, pmi))
    }

    /// All records, newest first.
    pub fn records(&self) -> Vec<Entry> {
        let mut out = vec![Entry::default(); sys::LBR_MAX_DEPTH];
        let count = unsafe { sys::lbr_cpu_records(self.0, out.as_mut_ptr()) };
        out.truncate(count as usize);
        out
    }

    /// Deliver a #DB: recording stops.
    pub fn debug_exception(&mut self) {
        unsafe { sys::lbr_cpu_debug_exception(self.0) };
    }

    /// The whole state as bytes.
    pub fn save(&self) -> Vec<u8> {
        let (mut out, mut used) = (vec![0u8; sys::LBR_STATE_MAX], 0);
        unsafe { sys::lbr_cpu_save(self.0, out.as_mut_ptr().cast(), out.len(), &mut used) };
        out.truncate(used);
        out
    }

    /// Loads saved state of any origin; state that is refused changes nothing.
    pub fn load(&mut self, data: &[u8]) -> Result<(), Error> {
        check(unsafe { sys::lbr_cpu_load(self.0, data.as_ptr().cast(), data.len()) }).map(|_| ())
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        unsafe { sys::lbr_cpu_destroy(self.0) };
    }
}
