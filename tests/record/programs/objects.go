// A program of Go's own linker; it lies where it was linked.
package main

//go:noinline
func work(rounds uint64) uint64 {
	sum := uint64(1)
	for i := uint64(0); i < rounds; i++ {
		if i&1 == 0 {
			sum ^= i
		} else {
			sum *= 3
		}
	}
	return sum
}

func main() { println(work(20000)) }
