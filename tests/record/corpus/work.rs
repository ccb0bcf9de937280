use std::collections::HashMap;
use std::thread;

fn work(n: u64) -> u64 {
    let mut seen: HashMap<u64, u64> = HashMap::new();
    let mut s = 0;
    for i in 0..n {
        *seen.entry(i % 977).or_insert(0) += i;
        s = (s * 31 + seen[&(i % 977)]) % 65521;
    }
    s
}

fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    let parts: Vec<_> = (0..4).map(|i| thread::spawn(move || work(900_000 + i))).collect();
    for part in parts {
        println!("{}", part.join().unwrap());
    }
    println!("{}", thread::spawn(|| panic!("on purpose")).join().is_err());
}
