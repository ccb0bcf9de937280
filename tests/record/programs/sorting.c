/* Sorts, searches and recurses: conditions of every kind but a switch, which gcov counts
 * as one branch with many ways. */
#include <stdio.h>
#include <stdlib.h>

static unsigned state = 7;
static unsigned next(void) { return state = state * 1103515245u + 12345u; }

static void swap(int *a, int *b) {
    int t = *a;
    *a = *b;
    *b = t;
}

static void sort(int *values, int n) {
    int last = 0;
    if (n < 2)
        return;
    for (int i = 1; i < n; i++)
        if (values[i] < values[0])
            swap(&values[++last], &values[i]);
    swap(&values[0], &values[last]);
    sort(values, last);
    sort(values + last + 1, n - last - 1);
}

static int find(const int *values, int n, int wanted) {
    int low = 0;
    while (low < n) {
        int middle = (low + n) / 2;
        if (values[middle] < wanted)
            low = middle + 1;
        else
            n = middle;
    }
    return low;
}

static int kind(int value) {
    if (value & 1 || value % 3 == 0)
        return value > 500 ? 2 : 3;
    return value & 8 && value < 2000;
}

int main(int argc, char **argv) {
    int n = argc > 1 ? atoi(argv[1]) : 100, sum = 0;
    int *values = malloc(sizeof *values * (size_t)n);
    for (int i = 0; i < n; i++)
        values[i] = (int)(next() >> 20);
    sort(values, n);
    for (int i = 0; i < n; i++) {
        int place = find(values, n, i);
        do
            sum += kind(values[place < n ? place : 0] + sum);
        while (sum & 1 && ++sum);
    }
    printf("%d\n", sum);
    free(values);
    return 0;
}
