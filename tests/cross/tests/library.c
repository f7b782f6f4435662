/* Images of a library: a function in versions, and one that calls it, and one with arguments of every kind. */
#if defined VERSION
int version(int a, int b) { return a * 100 + b * 10 + VERSION; }
#elif defined CALLER
int version(int, int);
int caller(int a, int b) { return version(a, b) + 1000; }
#else
struct big { long a, b, c; double d; };
struct big arguments(int a, long b, char c, double d, float e, int f, int g, long h, int i, int j, long k, double l,
                     double m, double n, double o, double p, double q, double r) {
    struct big big = {a + 2 * b + 3 * c, f + 5 * g + 7 * h + 11 * i, j + 13 * k, d + e * 2 + l + m + n + o + p + q * 3 + r};
    return big;
}
#endif
