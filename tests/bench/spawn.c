/*
 * spawn ROUNDS CANDIDATES: starts every candidate once in each round, in an order
 * that changes from round to round, and prints a line for each start:
 *
 *	ROUND NAME WALL CPU MEMORY
 *
 * CANDIDATES is a file with one candidate in each line: its name and the words of
 * its command line, separated by tabs. Words before a word "=>" are a command that
 * is run first, and not measured. VARIABLE=VALUE before the program sets that
 * variable of the environment. WALL is the time in nanoseconds from the start to
 * the end of the process; CPU is the processor time in microseconds that it took:
 * on a busy machine the one to believe. MEMORY is the most that was resident, in
 * KiB, but at least what this program itself takes. What the candidates print is
 * thrown away.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_CANDIDATES 64
#define MOST_WORDS 32
#define MOST_VARIABLES 64

extern char **environ;

struct candidate {
	char *name;
	char **preparation; /* NULL if there is none */
	char **command;
	char **environment;
	char *words[MOST_WORDS + 1];
};

static struct candidate candidates[MOST_CANDIDATES];
static int null;

static void die(const char *what)
{
	perror(what);
	exit(70);
}

/* A copy of the environment with one variable set. */
static char **with_variable(char **environment, char *variable)
{
	size_t name = (size_t)(strchr(variable, '=') - variable) + 1;
	char **copy = calloc(MOST_VARIABLES + 1, sizeof(*copy));
	int count = 0;

	if (!copy)
		die("calloc");
	for (; *environment && count < MOST_VARIABLES - 1; environment++)
		if (strncmp(*environment, variable, name))
			copy[count++] = *environment;
	copy[count] = variable;
	return copy;
}

static void read_candidate(struct candidate *candidate, char *line)
{
	int words = 0;
	char *word = strtok(line, "\t\n");

	candidate->name = strdup(word);
	candidate->command = candidate->words;
	while ((word = strtok(NULL, "\t\n")) && words < MOST_WORDS) {
		if (!strcmp(word, "=>")) {
			candidate->preparation = candidate->words;
			candidate->words[words++] = NULL;
			candidate->command = candidate->words + words;
		} else {
			candidate->words[words++] = strdup(word);
		}
	}
	candidate->environment = environ;
	for (; *candidate->command && **candidate->command != '/'; candidate->command++)
		candidate->environment = with_variable(candidate->environment, *candidate->command);
}

static int read_candidates(const char *path)
{
	static char line[16384];
	FILE *file = fopen(path, "r");
	int count = 0;

	if (!file)
		die(path);
	while (count < MOST_CANDIDATES && fgets(line, sizeof(line), file))
		read_candidate(&candidates[count++], line);
	fclose(file);
	return count;
}

/* Runs to its end; vfork, so that the cost does not depend on this program's size. */
static void run(char **command, char **environment, struct rusage *usage)
{
	int status;
	pid_t child = vfork();

	if (child == 0) {
		dup2(null, STDOUT_FILENO);
		execve(command[0], command, environment);
		_exit(127);
	}
	if (child < 0 || wait4(child, &status, 0, usage) != child)
		die("spawn");
	if (status) {
		fprintf(stderr, "spawn: %s: status %#x\n", command[0], status);
		exit(70);
	}
}

static long nanoseconds_between(const struct timespec *from, const struct timespec *to)
{
	return (to->tv_sec - from->tv_sec) * 1000000000L + to->tv_nsec - from->tv_nsec;
}

static long microseconds(const struct timeval *time)
{
	return time->tv_sec * 1000000L + time->tv_usec;
}

static void measure(long round, const struct candidate *candidate)
{
	struct timespec from, to;
	struct rusage usage;

	if (candidate->preparation)
		run(candidate->preparation, environ, &usage);
	clock_gettime(CLOCK_MONOTONIC, &from);
	run(candidate->command, candidate->environment, &usage);
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("%ld\t%s\t%ld\t%ld\t%ld\n", round, candidate->name, nanoseconds_between(&from, &to),
	       microseconds(&usage.ru_utime) + microseconds(&usage.ru_stime), usage.ru_maxrss);
}

/* The same orders every time the program runs, but one round's is not the next one's. */
static void shuffle(int *order, int count)
{
	for (int i = count - 1; i > 0; i--) {
		int j = rand() % (i + 1), moved = order[i];
		order[i] = order[j];
		order[j] = moved;
	}
}

int main(int argc, char **argv)
{
	int order[MOST_CANDIDATES], count;

	if (argc != 3) {
		fputs("usage: spawn ROUNDS CANDIDATES\n", stderr);
		return 64;
	}
	null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (null < 0)
		die("/dev/null");
	count = read_candidates(argv[2]);
	for (int i = 0; i < count; i++)
		order[i] = i;
	for (long round = 0; round < atol(argv[1]); round++) {
		shuffle(order, count);
		for (int i = 0; i < count; i++)
			measure(round, &candidates[order[i]]);
	}
	return fflush(stdout) ? 74 : 0;
}
