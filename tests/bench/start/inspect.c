/*
 * inspect PROGRAM [ARG...]: what a wrapper does from its start to its execve,
 * as one line:
 *
 *	CALLS INSTRUCTIONS
 *
 * CALLS counts its system calls, the execve at the end included; INSTRUCTIONS
 * those executed in user mode. Processes that it starts itself are not looked
 * into, so for shell scripts only the shell's own part is seen.
 *
 * Everything is counted by tracing, so it is the same on an idle and on a busy
 * machine, and needs no performance counters, which virtual machines often lack.
 */

#define _GNU_SOURCE
#include <elf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
	perror(what);
	exit(71);
}

static pid_t start(char **argv)
{
	int status;
	pid_t child = fork();

	if (child < 0)
		die("fork");
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		execv(argv[0], argv);
		_exit(127);
	}
	/* Stopped by the SIGTRAP of the first execve. */
	if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) {
		fprintf(stderr, "inspect: cannot execute %s\n", argv[0]);
		exit(71);
	}
	ptrace(PTRACE_SETOPTIONS, child, NULL,
	       (void *)(PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC));
	return child;
}

static void end(pid_t child)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

/* Runs to the next stop; the signal that made it, without the marks of PTRACE_O_TRACESYSGOOD. */
static int resume(pid_t child, enum __ptrace_request how, int signal)
{
	int status;

	if (ptrace(how, child, NULL, (void *)(long)signal) || waitpid(child, &status, 0) != child)
		die("ptrace");
	if (!WIFSTOPPED(status)) {
		fprintf(stderr, "inspect: it ended without an execve\n");
		exit(70);
	}
	return status >> 8;
}

#define AT_CALL (SIGTRAP | 0x80)
#define AT_EXEC (SIGTRAP | PTRACE_EVENT_EXEC << 8)

static long count_calls(char **argv)
{
	pid_t child = start(argv);
	long calls = 0;
	int signal = 0, stop;

	/* The first stop may still be the end of the execve that started it. */
	while ((stop = resume(child, PTRACE_SYSCALL, signal)) != AT_EXEC) {
		signal = 0;
		if (stop != AT_CALL) {
			signal = stop & 0x7f;
			continue;
		}
		struct __ptrace_syscall_info info;
		ptrace(PTRACE_GET_SYSCALL_INFO, child, (void *)sizeof(info), &info);
		calls += info.op == PTRACE_SYSCALL_INFO_ENTRY;
	}
	end(child);
	return calls;
}

static unsigned long long program_counter(pid_t child)
{
	struct user_regs_struct registers;
	struct iovec vector = { &registers, sizeof(registers) };

	if (ptrace(PTRACE_GETREGSET, child, (void *)NT_PRSTATUS, &vector))
		die("ptrace");
#if defined(__x86_64__)
	return registers.rip;
#else
	return registers.pc;
#endif
}

static long count_instructions(char **argv)
{
	pid_t child = start(argv);
	unsigned long long previous = 0;
	long instructions = 0;
	int signal = 0, stop;

	while ((stop = resume(child, PTRACE_SINGLESTEP, signal)) != AT_EXEC) {
		signal = stop == SIGTRAP ? 0 : stop & 0x7f;
		unsigned long long now = program_counter(child);
		/* A string instruction stops once for each of its rounds, but is one. */
		instructions += now != previous;
		previous = now;
	}
	end(child);
	return instructions;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fputs("usage: inspect PROGRAM [ARG...]\n", stderr);
		return 64;
	}
	printf("%ld ", count_calls(argv + 1));
	printf("%ld\n", count_instructions(argv + 1));
	return 0;
}
