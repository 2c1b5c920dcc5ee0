/* Answers rows of numbers, or a text, with a model: `program MODEL 0.5,1,..` prints labels and numbers. */
#include "lowbit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    char error[256] = "";
    if (argc != 3) return 99;
    lowbit_model *model = lowbit_load(argv[1], 1, error, sizeof error);
    if (!model) {
        printf("%s\n", error);
        return 50;
    }
    size_t features = lowbit_features(model), outputs = lowbit_outputs(model), rows = 0;
    float *y = malloc((strlen(argv[2]) + 1) * outputs * sizeof *y);
    int code;
    if (features) {
        float *x = malloc((strlen(argv[2]) + 1) * sizeof *x);
        size_t count = 0;
        for (char *word = strtok(argv[2], ","); word; word = strtok(NULL, ",")) x[count++] = strtof(word, NULL);
        rows = count / features;
        code = lowbit_predict(model, x, rows, y, error, sizeof error);
        free(x);
    } else {
        rows = 1;
        code = lowbit_predict_text(model, argv[2], y, error, sizeof error);
    }
    if (code) printf("%s\n", error);
    for (size_t i = 0; !code && i < rows * outputs; i++) {
        const char *label = lowbit_label(model, i % outputs);
        printf("%s %.6f\n", label ? label : "-", y[i]);
    }
    /* What is refused. */
    char tiny[8];
    if (lowbit_predict(NULL, y, 1, y, tiny, sizeof tiny) != LOWBIT_USAGE || strcmp(tiny, "the mod")) return 60;
    if (lowbit_predict(model, NULL, 1, y, NULL, 0) != LOWBIT_USAGE) return 61;
    if (lowbit_load("no-such-model", 0, error, sizeof error) || !strstr(error, "no-such-model")) return 62;
    if (lowbit_load(NULL, 0, NULL, 0)) return 63;
    if (lowbit_label(model, 1000) || !*lowbit_version()) return 64;
    free(y);
    lowbit_free(model);
    lowbit_free(NULL);
    return code;
}
