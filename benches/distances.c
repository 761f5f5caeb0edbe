/*
 * The yardstick of benches/distances.py: distances as plain loops that the compiler vectorises, the published way of
 * doing it in C. Compiled twice: as a library for ctypes, and with -DSERVER as functions for PostgreSQL.
 */
#ifdef SERVER
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#endif

float
loop_l2_squared(int n, const float *a, const float *b)
{
	float		sum = 0.0f;

	for (int i = 0; i < n; i++)
	{
		float		difference = a[i] - b[i];

		sum += difference * difference;
	}
	return sum;
}

float
loop_inner_product(int n, const float *a, const float *b)
{
	float		sum = 0.0f;

	for (int i = 0; i < n; i++)
		sum += a[i] * b[i];
	return sum;
}

double		scan_l2(int rows, int n, const float *matrix, const float *query);
double		scan_inner_product(int rows, int n, const float *matrix, const float *query);

double
scan_l2(int rows, int n, const float *matrix, const float *query)
{
	double		sum = 0.0;

	for (int i = 0; i < rows; i++)
		sum += loop_l2_squared(n, matrix + (long) i * n, query);
	return sum;
}

double
scan_inner_product(int rows, int n, const float *matrix, const float *query)
{
	double		sum = 0.0;

	for (int i = 0; i < rows; i++)
		sum += loop_inner_product(n, matrix + (long) i * n, query);
	return sum;
}

#ifdef SERVER
PG_MODULE_MAGIC;

typedef struct Vector
{
	int32		vl_len_;
	int16		dim;
	int16		unused;
	float		x[FLEXIBLE_ARRAY_MEMBER];
} Vector;

PG_FUNCTION_INFO_V1(bench_l2_distance);

Datum
bench_l2_distance(PG_FUNCTION_ARGS)
{
	Vector	   *a = (Vector *) PG_DETOAST_DATUM(PG_GETARG_DATUM(0));
	Vector	   *b = (Vector *) PG_DETOAST_DATUM(PG_GETARG_DATUM(1));

	if (a->dim != b->dim)
		ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION), errmsg("different dimensions")));
	PG_RETURN_FLOAT8(sqrt((double) loop_l2_squared(a->dim, a->x, b->x)));
}

PG_FUNCTION_INFO_V1(bench_negative_inner_product);

Datum
bench_negative_inner_product(PG_FUNCTION_ARGS)
{
	Vector	   *a = (Vector *) PG_DETOAST_DATUM(PG_GETARG_DATUM(0));
	Vector	   *b = (Vector *) PG_DETOAST_DATUM(PG_GETARG_DATUM(1));

	if (a->dim != b->dim)
		ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION), errmsg("different dimensions")));
	PG_RETURN_FLOAT8((double) -loop_inner_product(a->dim, a->x, b->x));
}
#endif
