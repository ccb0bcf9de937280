// A program that spends its time in an interface's method and a function that is too large to inline.
package main

type op interface{ do(x uint32) uint32 }

type add struct{ n uint32 }

type mul struct{ n uint32 }

func (a add) do(x uint32) uint32 {
	for i := uint32(0); i < 3; i++ {
		x = x*31 + a.n + i
		if x%7 == 3 {
			x ^= 0x55
		}
	}
	return x
}

func (m *mul) do(x uint32) uint32 { return x*m.n + 1 }

func large(x uint32) uint32 {
	if x&1 == 0 {
		x = x*3 + 1
	} else {
		x >>= 1
	}
	if x&2 == 0 {
		x ^= 0x1234
		x = x<<3 | x>>29
	} else {
		x += 77
	}
	if x&4 == 0 {
		x ^= 0x4321
		x = x<<5 | x>>27
	} else {
		x += 99
	}
	if x&8 == 0 {
		x ^= 0x9876
		x = x<<7 | x>>25
	} else {
		x += 11
	}
	return x
}

//go:noinline
func run(ops []op, rounds int) uint32 {
	var sum uint32
	for i := 0; i < rounds; i++ {
		next := ops[0]
		if i%100 == 0 {
			next = ops[1]
		}
		sum = next.do(sum + uint32(i))
		sum ^= large(sum)
	}
	return sum
}

func main() { println(run([]op{add{3}, &mul{5}}, 5000000)) }
