module devirtualized

go 1.21
