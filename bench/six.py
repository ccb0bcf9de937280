"""Six programs whose traces the containers are measured on."""

import random
import subprocess
from pathlib import Path

CPP = r"""
#include <algorithm>
#include <iostream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>
struct Shape { virtual ~Shape() = default; virtual double area() const = 0; };
struct Square : Shape { double a; explicit Square(double x) : a(x) {} double area() const override { return a * a; } };
struct Circle : Shape { double r; explicit Circle(double x) : r(x) {} double area() const override { return 3.1 * r * r; } };
struct Bar : Shape { double a, b; Bar(double x, double y) : a(x), b(y) {} double area() const override { return a > b ? a * b : b; } };
int main(int argc, char **argv) {
  int n = atoi(argv[1]); std::mt19937 rng(7); double total = 0;
  std::map<std::string, int> tree; std::unordered_map<std::string, std::vector<int>> table;
  for (int round = 0; round < n; round++) {
    std::ostringstream out;
    for (int i = 0; i < 2000; i++) out << "w" << rng() % 700 << (i % 3 ? " " : "\n");
    std::istringstream in(out.str()); std::string word;
    for (int i = 0; in >> word; i++) { tree[word]++; table[word].push_back(i); }
    std::vector<std::pair<int, std::string>> order;
    for (auto &x : tree) order.push_back({x.second, x.first});
    std::sort(order.begin(), order.end(), [](auto &a, auto &b) {
      return a.first != b.first ? a.first > b.first : a.second < b.second; });
    std::vector<Shape *> shapes;
    for (int i = 0; i < 1500; i++) switch (rng() % 3) {
      case 0: shapes.push_back(new Square(i)); break;
      case 1: shapes.push_back(new Circle(i)); break;
      default: shapes.push_back(new Bar(i, rng() % 2000)); }
    for (auto s : shapes) total += s->area();
    for (auto s : shapes) delete s;
    total += order[0].first;
  }
  std::cout << total << " " << tree.size() << " " << table.size() << "\n";
}
"""  # noqa: E501

PERL = r"""
my %c; my $s = 12345; my @w;
for my $i (1..$ARGV[0]) { $s = ($s*1103515245+12345) & 0x7fffffff;
  push @w, join('', map { chr(97 + (($s >> $_) % 26)) } (3, 7, 11, 16)); }
for my $l (@w) { $c{$1}++ if $l =~ /^([a-m]+)/; $c{uc $l}++; (my $t = $l) =~ s/[aeiou]/x/g;
  $c{$t} += length $t; }
my $n = 0; for (sort { $c{$b} <=> $c{$a} || $a cmp $b } keys %c) { last if $n++ > 1000;
  printf "%s %d\n", $_, $c{$_}; }
"""

PYTHON = """
import sys, re
class V:
    def __init__(self, a, b): self.a, self.b = a, b
    def __add__(self, o): return V(self.a + o.a, self.b * 3 % 1009 + o.b)
def words(n):
    s = 99
    for i in range(n):
        s = (s * 1103515245 + 12345) & 0x7fffffff
        yield "".join(chr(97 + (s >> k) % 26) for k in (3, 7, 11))
d = {}
for w in words(int(sys.argv[1])): d.setdefault(w[:2], []).append(w)
t = V(0, 1)
for k in sorted(d): t = t + V(len(d[k]), sum(map(ord, k)))
print(t.a, t.b, len([x for v in d.values() for x in v if re.match("[a-f].*[m-z]$", x)]))
"""

SQL = """
create table t(a integer primary key, b text, c int);
insert into t with recursive x(i) as (select 1 union all select i+1 from x where i < {n})
  select i, 'k' || (i*7919 % 5003), i*i % 977 from x;
create index ti on t(c);
select c, count(*), max(b) from t group by c order by 2 desc, 1 limit 5;
select count(*) from t a join t b on a.c = b.c where b.a < 300;
update t set b = b || 'z' where c % 5 = 2;
select sum(length(b)) from t where b like '%1%z';
"""


def commands(place: Path, scale: int = 4) -> dict[str, list[str]]:
    """{name: command}; the work grows with `scale`: 4 makes 6 to 60 million branches each."""
    choose = random.Random(5)
    lexicon = ["".join(choose.choices("etaoinshrdlucmfwyp", k=choose.randint(2, 9)))
               for _ in range(2500)]
    ranks = [1 / (i + 3) for i in range(len(lexicon))]
    for name, size in (("text", 60_000 * scale), ("short", 12_000 * scale)):
        (place / name).write_text("\n".join(
            " ".join(choose.choices(lexicon, ranks, k=11)) for _ in range(size // 60)))
    for name, text in (("w.cpp", CPP), ("w.pl", PERL), ("w.py", PYTHON),
                       ("w.sql", SQL.format(n=3000 * scale))):
        (place / name).write_text(text)
    subprocess.run(["g++", "-O2", "-o", place / "words", place / "w.cpp"], check=True)
    return {
        "gzip": ["/bin/gzip", "-6", "-c", f"{place}/text"],
        "xz": ["/usr/bin/xz", "-3", "-c", f"{place}/short"],
        "C++": [f"{place}/words", str(4 * scale)],
        "perl": ["/usr/bin/perl", f"{place}/w.pl", str(800 * scale)],
        "python3": ["/usr/bin/python3", "-I", "-S", f"{place}/w.py", str(4000 * scale)],
        "sqlite3": ["/usr/bin/sqlite3", ":memory:", f".read {place}/w.sql"],
    }
