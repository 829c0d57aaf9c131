/* hello-libhpkv.c - a C program that uses hpkvd: stores a value and reads it back.
 *
 *	cc hello-libhpkv.c $(pkg-config --cflags --libs libhpkv) -o hello && ./hello */
#include <hpkv.h>
#include <stdio.h>

int main(void)
{
	struct hpkv *h = hpkv_new(NULL);
	struct hpkv_bytes value;
	int r = hpkv_set(h, hpkv_str("greeting"), hpkv_str("hello, world"));
	if (r == HPKV_OK)
		r = hpkv_get(h, hpkv_str("greeting"), &value);
	if (r == HPKV_OK)
		printf("%.*s\n", (int)value.n, value.p);
	else
		fprintf(stderr, "%s\n", hpkv_error(h));
	hpkv_free(h);
	return r != HPKV_OK;
}
