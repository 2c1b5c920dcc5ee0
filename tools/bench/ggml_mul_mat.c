// Times ggml's mul_mat on demand: ./ggml_mul_mat tq2_0|tq1_0|... ROWS COLS TOKENS THREADS COPIES
//
// Says the bytes of the matrix, then answers each line on standard input by the seconds of a product: a graph with a
// mul_mat of every copy, computed until 10 ms have passed. Weights lie in pages of 2 MiB where the system has such.
#include "ggml-cpu.h"
#include "ggml.h"
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE ((size_t) 2 << 20)

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static uint64_t state = 7;

static int below(int n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int) ((state >> 33) % (uint64_t) n);
}

static void fail(const char * text) {
    fprintf(stderr, "%s\n", text);
    exit(1);
}

static void * large_pages(size_t bytes) {
    bytes = (bytes + PAGE - 1) / PAGE * PAGE;
    char * p = aligned_alloc(PAGE, bytes);
    if (!p) fail("not enough memory");
    madvise(p, bytes, MADV_HUGEPAGE);
    memset(p, 0, bytes);
    return p;
}

static enum ggml_type find(const char * name) {
    for (int t = 0; t < GGML_TYPE_COUNT; t++) {
        const char * known = ggml_type_name((enum ggml_type) t);
        if (known && !strcmp(known, name)) return (enum ggml_type) t;
    }
    fail("unknown type");
    return GGML_TYPE_COUNT;
}

// Compares some outputs, [tokens, rows], with the float product; activations are rounded to 8 bits on the way.
static void check(const float * w, const float * x, const float * y, int64_t rows, int64_t cols, int64_t tokens) {
    for (int i = 0; i < 64; i++) {
        int64_t row = i * (rows - 1) / 63, token = i * (tokens - 1) / 63;
        double want = 0, size = 0;
        for (int64_t c = 0; c < cols; c++) {
            want += (double) w[row * cols + c] * x[token * cols + c];
            size += fabs((double) w[row * cols + c]);
        }
        if (!(fabs(y[token * rows + row] - want) <= 0.01 * size)) fail("a product is wrong");
    }
}

static double sample(struct ggml_cgraph * graph, struct ggml_cplan * plan, int copies) {
    double start = now(), passed;
    int64_t products = 0;
    do {
        if (ggml_graph_compute(graph, plan) != GGML_STATUS_SUCCESS) fail("ggml failed");
        products += copies;
        passed = now() - start;
    } while (passed < 10e-3);
    return passed / products;
}

int main(int argc, char ** argv) {
    if (argc != 7) fail("usage: ggml_mul_mat TYPE ROWS COLS TOKENS THREADS COPIES");
    enum ggml_type type = find(argv[1]);
    int64_t rows = atoll(argv[2]), cols = atoll(argv[3]), tokens = atoll(argv[4]);
    int threads = atoi(argv[5]), copies = atoi(argv[6]);
    if (rows < 1 || cols < 1 || cols % ggml_blck_size(type) || tokens < 1 || threads < 1 || copies < 1) fail("bad size");
    ggml_cpu_init();

    float * w = malloc(sizeof(float) * rows * cols);
    for (int64_t i = 0; i < rows * cols; i++) w[i] = (float) below(3) - 1;
    size_t bytes = ggml_row_size(type, cols) * rows;
    char * all = large_pages(bytes * copies);
    ggml_quantize_chunk(type, w, all, 0, rows, cols, NULL);
    for (int i = 1; i < copies; i++) memcpy(all + bytes * i, all, bytes);

    struct ggml_init_params params = { ggml_tensor_overhead() * (2 * copies + 8) + ggml_graph_overhead_custom(2 * copies + 8, false), NULL, true };
    struct ggml_context * ctx = ggml_init(params);
    struct ggml_tensor * x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, cols, tokens);
    x->data = large_pages(ggml_nbytes(x));
    for (int64_t i = 0; i < cols * tokens; i++) ((float *) x->data)[i] = below(2001) / 1000.0f - 1;
    float * y = large_pages(sizeof(float) * rows * tokens);
    struct ggml_cgraph * graph = ggml_new_graph_custom(ctx, 2 * copies + 8, false);
    for (int i = 0; i < copies; i++) {
        struct ggml_tensor * weights = ggml_new_tensor_2d(ctx, type, cols, rows);
        weights->data = all + bytes * i;
        struct ggml_tensor * product = ggml_mul_mat(ctx, weights, x);
        product->data = y;
        ggml_build_forward_expand(graph, product);
    }
    struct ggml_cplan plan = ggml_graph_plan(graph, threads, NULL);
    plan.work_data = plan.work_size ? large_pages(plan.work_size) : NULL;

    sample(graph, &plan, copies);
    check(w, x->data, y, rows, cols, tokens);
    free(w);
    printf("%zu\n", bytes);
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        printf("%e\n", sample(graph, &plan, copies));
        fflush(stdout);
    }
    return 0;
}
