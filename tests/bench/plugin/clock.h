/* What before.c and after.c share. */

#include <stdint.h>
#include <time.h>

extern uint64_t hook_began;

static inline uint64_t nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
