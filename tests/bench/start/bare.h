/* System calls without a C library, for programs that have nothing but _start. */

#ifndef BARE_H
#define BARE_H

#include <asm/unistd.h>

static inline long call3(long number, long a, long b, long c)
{
#if defined(__x86_64__)
	long result;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return result;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	return x0;
#else
#error "no system calls for this machine"
#endif
}

/* The kernel starts a program with argc, argv and the environment on the stack. */
#if defined(__x86_64__)
#define ENTRY "_start: xor %ebp, %ebp; mov %rsp, %rdi; and $-16, %rsp; call begin"
#elif defined(__aarch64__)
#define ENTRY "_start: mov x29, #0; mov x0, sp; bl begin"
#endif
__asm__(".text; .global _start; " ENTRY);

#endif
