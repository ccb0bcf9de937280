"""Work for an interpreter."""

s = 0
for i in range(300000):
    s = (s * 31 + len(str(i))) & 0xFFFFFFFF
print(s)
