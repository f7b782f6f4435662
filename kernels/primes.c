/* How many primes are below n, by the sieve of Eratosthenes. It needs what objects of real programs need:
 * library calls, static data, and a constructor. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int calls;
static const char *last_message = "never called";

__attribute__((constructor)) static void start(void) { calls = 100; }

long primes(long n)
{
    calls++;
    last_message = "called";
    if (n < 3)
        return 0;
    char *composite = malloc((size_t)n);
    if (!composite)
        return -1;
    memset(composite, 0, (size_t)n);
    long count = 0;
    for (long i = 2; i < n; i++) {
        if (composite[i])
            continue;
        count++;
        for (long j = i * i; j < n; j += i)
            composite[j] = 1;
    }
    free(composite);
    return count;
}

/* 100 when the constructor has run, and 1 for each call since. */
int call_count(void) { return calls; }

const char *status(void) { return last_message; }
