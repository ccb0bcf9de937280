/* As many rounds of kinds.h as the first word says, by default 20,000. */
#include <stdlib.h>
#include "kinds.h"
int main(int count, char **words) {
    rounds(count > 1 ? (unsigned)atoi(words[1]) : 20000);
    return 0;
}
