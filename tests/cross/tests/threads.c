/* Thread-local variables: initialised and zero, of two alignments; a pointer that is relocated; a static one. */
#ifdef FIXED /* at a fixed distance from the thread pointer: what has content is not served while threads run */
#define INITIALLY(value)
#else
#define INITIALLY(value) = value
#endif
int target = 7;
__thread int counter INITIALLY(40);
__thread long zero;
static __thread char buffer[100];
__thread int *pointer INITIALLY(&target);
__thread int aligned __attribute__((aligned(64))) INITIALLY(3);
int next(void) { return ++counter; }
int add(int n) { zero += n; buffer[n & 63] = n; return (int)zero + buffer[n & 63]; }
int through(void) { return pointer ? *pointer : -1; }
int is_aligned(void) { return aligned + (int)((unsigned long)&aligned % 64); }
