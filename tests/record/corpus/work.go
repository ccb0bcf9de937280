package main

import (
	"fmt"
	"sort"
	"sync"
)

func work(n int) (s int) {
	defer func() {
		if recover() != nil {
			s++
		}
	}()
	seen := map[int]int{}
	for i := 0; i < n; i++ {
		seen[i%977] += i
		s = (s*31 + seen[i%977]) % 65521
	}
	var none *int
	return *none
}

func main() {
	var group sync.WaitGroup
	results := make([]int, 8)
	for i := range results {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			results[i] = work(400000 + i)
		}(i)
	}
	group.Wait()
	sort.Ints(results)
	fmt.Println(results)
}
