/* What a compiled program does most: hash, sort, search and copy.  Freestanding, at 0x10000. */
#include <stdint.h>

enum { SIZE = 1 << 12, TABLE = 1 << 12 };
static uint32_t data[SIZE], table[TABLE];
static uint8_t text[SIZE], packed[2 * SIZE];

static uint32_t next(uint32_t *seed)
{
    return *seed = *seed * 1664525u + 1013904223u;
}

__attribute__((noinline)) static void sort(uint32_t *a, int low, int high)
{
    while (low < high) {
        uint32_t pivot = a[(low + high) / 2], kept;
        int i = low, j = high;
        while (i <= j) {
            while (a[i] < pivot)
                i++;
            while (a[j] > pivot)
                j--;
            if (i <= j) {
                kept = a[i];
                a[i++] = a[j];
                a[j--] = kept;
            }
        }
        sort(a, low, j);
        low = i;
    }
}

__attribute__((noinline)) static uint32_t checksum(const uint8_t *bytes, uint32_t count)
{
    uint32_t crc = ~0u;
    for (uint32_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

__attribute__((noinline)) static uint32_t pack(void)
{
    uint32_t out = 0;
    for (uint32_t i = 0; i < TABLE; i++)
        table[i] = 0;
    for (uint32_t i = 0; i + 4 < SIZE;) {
        uint32_t key = (text[i] | text[i + 1] << 8 | text[i + 2] << 16) * 2654435761u >> 20;
        uint32_t at = table[key], length = 0;
        table[key] = i;
        while (at < i && i + length < SIZE && length < 255 && text[at + length] == text[i + length])
            length++;
        if (length > 3) {
            packed[out++] = (uint8_t)length;
            packed[out++] = (uint8_t)(i - at);
            i += length;
        } else {
            packed[out++] = text[i++];
        }
    }
    return out;
}

int main(int rounds)
{
    uint32_t seed = 1, sum = 0;
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < SIZE; i++) {
            data[i] = next(&seed);
            text[i] = "the branch records of a processor"[data[i] >> 8 & 7 | (data[i] >> 28 & 8)];
        }
        sort(data, 0, SIZE - 1);
        sum += pack() + checksum(packed, SIZE) + data[sum % SIZE];
    }
    return (int)sum;
}

__attribute__((naked, section(".start"))) void start(void)
{
    __asm__("call main\n hlt");
}
