/* The one file of the programs that holds the implementation. */
#define SPLITMASK_THREADS
#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
