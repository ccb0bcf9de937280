// Prints where its main function lies.
#[inline(never)]
fn work(rounds: u64) -> u64 {
    (0..rounds).fold(1, |sum, i| if i & 1 == 0 { sum ^ i } else { sum.wrapping_mul(3) })
}

fn main() {
    let sum = work(std::env::args().count() as u64 * 20000);
    println!("work {:#x} {}", work as usize, sum);
}
