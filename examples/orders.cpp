// A program to profile: it sorts, adds up and counts orders. docs/report.md shows its report.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>
#include <algorithm>

namespace shop {

struct Order { int customer; double price; std::string name; };

template <class T> T clamp_price(T value, T low, T high)
{
    if (value < low)
        return low;
    if (value > high)
        return high;
    return value;
}

__attribute__((noinline)) double total(const std::vector<Order> &orders)
{
    double sum = 0;
    for (const Order &order : orders) {
        if (order.customer % 3 == 0)
            sum += clamp_price(order.price, 1.0, 50.0);
        else if (order.name.size() > 6)
            sum -= 0.5;
    }
    return sum;
}

__attribute__((noinline)) int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

__attribute__((noinline)) void sort_orders(std::vector<Order> &orders)
{
    std::sort(orders.begin(), orders.end(),
              [](const Order &a, const Order &b) { return a.price < b.price; });
}

__attribute__((noinline)) std::map<std::string, int> count(const std::vector<Order> &orders)
{
    std::map<std::string, int> found;
    for (const Order &order : orders)
        found[order.name]++;
    return found;
}
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 60;
    double sum = 0;
    for (int round = 0; round < rounds; round++) {
        std::vector<shop::Order> orders;
        for (int i = 0; i < 4000; i++)
            orders.push_back({rand() % 100, (rand() % 10000) / 100.0, "item" + std::to_string(rand() % 500)});
        shop::sort_orders(orders);
        sum += shop::total(orders) + shop::fib(16);
        sum += shop::count(orders).size();
    }
    printf("%f\n", sum);
}
