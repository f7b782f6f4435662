/* c = a * b for square matrices in row order. The loops are in i-k-j order, so that the innermost one runs
 * along rows of b and c and vectorises. */
void matmul(long n, const double *a, const double *b, double *c)
{
    for (long i = 0; i < n * n; i++)
        c[i] = 0;
    for (long i = 0; i < n; i++)
        for (long k = 0; k < n; k++)
            for (long j = 0; j < n; j++)
                c[i * n + j] += a[i * n + k] * b[k * n + j];
}
