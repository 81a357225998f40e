/* Ends at once: stands for the program that a wrapper executes. */

#include "bare.h"

void begin(long *stack)
{
	(void)stack;
	call3(__NR_exit_group, 0, 0, 0);
}
