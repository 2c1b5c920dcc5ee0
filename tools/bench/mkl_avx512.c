/* Intel MKL, inside PyTorch's wheels, takes its AVX2 code path on CPUs of other makers. This preload makes it take the
 * AVX-512 path where the CPU has it:
 *
 *   cc -shared -fPIC -O2 -o mkl_avx512.so mkl_avx512.c
 *   LD_PRELOAD=$PWD/mkl_avx512.so python pytorch_train.py
 */
int mkl_serv_intel_cpu_true(void) { return 1; }
