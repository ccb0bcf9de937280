// A program whose hot code comes out of templates, lambdas and virtual functions, most of it inlined.
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace app {
namespace {

struct Shape {
    virtual ~Shape() = default;
    virtual double area() const = 0;
};

struct Square : Shape {
    double side;
    explicit Square(double s) : side(s) {}
    double area() const override { return side * side; }
};

struct Disc : Shape {
    double radius;
    explicit Disc(double r) : radius(r) {}
    double area() const override { return 3.14 * radius * radius; }
};

template <class T> T mix(T a, T b) { return a * 31 + b; }

}  // namespace

double total(int n) {
    std::vector<std::unique_ptr<Shape>> shapes;
    std::map<std::string, int> seen;
    for (int i = 0; i < n; i++) {
        if (i % 3) shapes.push_back(std::make_unique<Square>(i));
        else shapes.push_back(std::make_unique<Disc>(i));
        seen[std::to_string(mix(i, 7) % 1000)]++;
    }
    std::sort(shapes.begin(), shapes.end(),
              [](auto &a, auto &b) { return a->area() < b->area(); });
    double sum = 0;
    for (auto &shape : shapes) sum += shape->area();
    for (auto &pair : seen) sum += pair.second;
    return sum;
}

}  // namespace app

int main() { std::printf("%f\n", app::total(200000)); }
