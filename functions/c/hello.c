/* The example module `hello`: tasks in C. Build it with build.sh. */
#include "broccoli.h"

static bc_result hello(bc_reader *args) {
    bc_slice name = bc_read_str(args);
    if (name.len == 0) return BC_ERROR("who?");
    static const char greeting[] = "hello ";
    size_t len = sizeof(greeting) - 1;
    char *text = bc_alloc(len + name.len);
    __builtin_memcpy(text, greeting, len);
    __builtin_memcpy(text + len, name.data, name.len);
    bc_log("greeting", 8);
    bc_writer out = bc_result_begin();
    bc_write_str(&out, text, len + name.len);
    return bc_ok(&out);
}
BROCCOLI_TASK_1(hello, "name", "str", "!str", "Greets somebody.")

static bc_result divide(bc_reader *args) {
    int64_t x = bc_read_int(args), y = bc_read_int(args);
    if (y == 0) return BC_ERROR("division by zero");
    if (x == INT64_MIN && y == -1) return BC_ERROR("integer overflow");
    bc_writer out = bc_result_begin();
    bc_write_list(&out, 2);
    bc_write_int(&out, x / y);
    bc_write_int(&out, x % y);
    return bc_ok(&out);
}
BROCCOLI_TASK_2(divide, "x", "i64", "y", "i64", "!(i64,i64)", "Quotient and remainder.")

static bc_result mean(bc_reader *args) {
    size_t count = bc_read_list(args);
    if (count == 0) BC_PANIC("the mean of nothing");
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += bc_read_float(args);
    bc_writer out = bc_result_begin();
    bc_write_float(&out, sum / (double)count);
    return bc_ok(&out);
}
BROCCOLI_TASK_1(mean, "numbers", "[f64]", "f64", "The arithmetic mean.")
