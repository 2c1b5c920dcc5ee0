/*
 * Models of lowbit from C: load, predict, free.
 *
 * Link the static library that `cargo build --release -p lowbit-c` makes:
 *
 *     cc program.c -I crates/lowbit-c/include target/release/liblowbit_c.a -lpthread -ldl -lm
 *
 * A model may be used by several threads at once. A function that can fail writes a sentence (place, value, remedy) to
 * `error`, which may be NULL, cut to `error_size` bytes with their final 0.
 */
#ifndef LOWBIT_H
#define LOWBIT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A classifier, regression or embedding model. */
typedef struct lowbit_model lowbit_model;

/* What a function returns: the exit codes of the program `lowbit`. */
enum {
    LOWBIT_OK = 0,
    LOWBIT_INTERNAL = 1, /* a fault of the library */
    LOWBIT_USAGE = 2,    /* the request is wrong: NULL, a model of another kind */
    LOWBIT_INPUT = 3,    /* the content of a file is wrong */
    LOWBIT_MEMORY = 4,   /* more memory is needed than there is */
    LOWBIT_IO = 5,       /* reading failed */
    LOWBIT_NUMERIC = 6   /* a value is NaN or infinite */
};

/* The version of the library. */
const char *lowbit_version(void);

/*
 * Opens a model and loads its network: one file, as `lowbit convert MODEL model.safetensors` writes it, or a directory
 * (`config.json`, `model.safetensors`, and `tokenizer.json` where texts are read). `threads` is how many compute; 0 for the physical cores. Returns NULL when it fails.
 */
lowbit_model *lowbit_load(const char *path, size_t threads, char *error, size_t error_size);

/* Numbers of a row that the network reads; 0 for one that reads texts. */
size_t lowbit_features(const lowbit_model *model);

/* Numbers of an answer: one per class, 1 of a regression, the width of a vector. */
size_t lowbit_outputs(const lowbit_model *model);

/* The name of a class, as long as the model lives; NULL where there is none. */
const char *lowbit_label(const lowbit_model *model, size_t number);

/*
 * Answers rows of numbers `[rows, lowbit_features]`, in units of the training data, with `[rows, lowbit_outputs]`: probabilities of
 * classes, a value in units of the training data, or a vector.
 */
int lowbit_predict(const lowbit_model *model, const float *x, size_t rows, float *y, char *error, size_t error_size);

/* Answers one text, UTF-8 that ends in 0, with `[lowbit_outputs]`. */
int lowbit_predict_text(const lowbit_model *model, const char *text, float *y, char *error, size_t error_size);

/* Frees a model; NULL is ignored. */
void lowbit_free(lowbit_model *model);

#ifdef __cplusplus
}
#endif

#endif
