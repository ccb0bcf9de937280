#include "../bochs.h"
