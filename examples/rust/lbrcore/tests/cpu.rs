use lbrcore::{Branch, Class, Cpu, Error, Pmi};

const DEBUGCTL: u32 = 0x1D9;
const GLOBAL_STATUS: u32 = 0x38E;
const LBR_CTL: u32 = 0x14CE;
const FROM_0: u32 = 0x1500;

fn recording(model: &str) -> Cpu {
    let mut cpu = Cpu::new(model).unwrap();
    cpu.wrmsr(LBR_CTL, 0x7F0007).unwrap();
    cpu
}

#[test]
fn branches_show_newest_first() {
    let mut cpu = recording("sapphire-rapids");
    let branches: Vec<_> = (1..=40).map(|n| Branch::new(n, n + 0x100, Class::Cond)).collect();
    assert_eq!(cpu.record(&branches).unwrap(), (40, Pmi::None));
    let records = cpu.records();
    assert_eq!(records.len(), 32);
    assert_eq!((records[0].from, records[0].to, records[31].from), (40, 0x128, 9));
    assert_eq!(cpu.rdmsr(FROM_0), Ok(40));
}

#[test]
fn a_refused_access_tells_the_rule_and_changes_nothing() {
    let mut cpu = recording("alder-lake-p");
    let before = cpu.save();
    match cpu.wrmsr(LBR_CTL, 1 << 40 | 1).unwrap_err() {
        Error::GeneralProtection { rule, bits } => {
            assert_eq!((rule, bits), ("reserved bits must be 0", 1 << 40))
        }
        other => panic!("{other}"),
    }
    assert!(cpu.rdmsr(0x9999).unwrap_err().to_string().starts_with("#GP: alder-lake-p has no"));
    assert_eq!(cpu.save(), before);
}

#[test]
fn a_counter_that_overflows_freezes_and_interrupts() {
    let mut cpu = recording("sapphire-rapids");
    for (index, value) in [(DEBUGCTL, 0x800), (0x38F, 1), (0x186, 0x5300C4), (0x4C1, (1 << 48) - 3)]
    {
        cpu.wrmsr(index, value).unwrap();
    }
    let branches: Vec<_> = (1..9).map(|n| Branch::new(n, n, Class::NearRelJmp).cpl(3, 3)).collect();
    assert_eq!(cpu.record(&branches).unwrap(), (3, Pmi::Raised));
    assert_eq!(cpu.rdmsr(GLOBAL_STATUS), Ok(1 << 58 | 1));
    assert_eq!(cpu.branch(&branches[3].mispredicted().since(2, 3)).unwrap(), Pmi::None);
    assert_eq!(cpu.records()[0].from, 3, "frozen");
}

#[test]
fn state_moves_and_damage_is_refused() {
    let mut cpu = recording("sierra-forest");
    let _ = cpu.branch(&Branch::new(1, 2, Class::Syscall)).unwrap();
    let mut data = cpu.save();
    let mut other = Cpu::new("sierra-forest").unwrap();
    other.load(&data).unwrap();
    assert_eq!(other.records(), cpu.records());
    data[100] ^= 1;
    assert!(matches!(other.load(&data), Err(Error::Library { .. })));
    assert!(Cpu::new("zen4").unwrap().load(&cpu.save()).is_err());
    other.debug_exception();
    assert_eq!(other.rdmsr(LBR_CTL), Ok(0x7F0006));
}

#[test]
fn models_are_known_or_refused() {
    assert!(Cpu::new("pentium-3").err().unwrap().to_string().contains("no model"));
    assert_eq!(Cpu::new("zen4").unwrap().cpuid(0x8000_0022, 0)[0] & 2, 2);
    assert_eq!(Cpu::new("alder-lake-p").unwrap().cpuid(0x1C, 0)[0] & 0xFF, 0x0B);
}

#[test]
fn processors_run_in_parallel() {
    let workers: Vec<_> = (0..4u64)
        .map(|n| {
            let mut cpu = recording("sapphire-rapids");
            std::thread::spawn(move || {
                for i in 0..10_000 {
                    let _ = cpu.branch(&Branch::new(n << 32 | i, i, Class::Cond)).unwrap();
                }
                cpu.records()[0].from
            })
        })
        .collect();
    for (n, worker) in workers.into_iter().enumerate() {
        assert_eq!(worker.join().unwrap(), (n as u64) << 32 | 9999);
    }
}
