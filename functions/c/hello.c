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

static bc_result knock(bc_reader *args) {
    if (!bc_read_bool(args)) return BC_RETRY("nobody opens", 2000);
    bc_writer out = bc_result_begin();
    bc_write_null(&out);
    return bc_ok(&out);
}
BROCCOLI_TASK_1(knock, "open", "bool", "!null", "Asks to be tried again in 2 s while nobody opens.")

/* The canvas hello.hello(name), behind what was written. */
static void write_hello(bc_writer *out, bc_slice name) {
    bc_writer call = bc_result_begin();
    bc_write_list(&call, 1);
    bc_write_str(&call, name.data, name.len);
    BC_WRITE_CALL(out, "hello.hello", &call);
}

static bc_result relay(bc_reader *args) {
    bc_writer out = bc_result_begin();
    bc_write_replacement(&out);
    write_hello(&out, bc_read_str(args));
    return bc_ok(&out);
}
BROCCOLI_TASK_1(relay, "name", "str", "!str", "Has somebody greeted by another task in its place.")

static bc_result wave(bc_reader *args) {
    bc_writer canvas = bc_result_begin();
    write_hello(&canvas, bc_read_str(args));
    bc_progress(1, 2);
    if (bc_submit(&canvas) != 0) return BC_ERROR("this node takes no more jobs");
    bc_progress(2, 2);
    bc_writer out = bc_result_begin();
    bc_write_null(&out);
    return bc_ok(&out);
}
BROCCOLI_TASK_1(wave, "name", "str", "!null", "Submits a greeting that nobody waits for.")

static bc_result pressed(bc_reader *args) {
    bc_board level = bc_gpio_read((uint16_t)bc_read_int(args));
    if (!level.ok) return BC_BOARD_ERROR(level);
    bc_board shone = bc_led(level.value == 1);
    if (!shone.ok) return BC_BOARD_ERROR(shone);
    bc_writer out = bc_result_begin();
    bc_write_bool(&out, level.value == 1);
    return bc_ok(&out);
}
BROCCOLI_TASK_1(pressed, "pin", "u16", "!bool", "Whether a pin is high; the LED shows it.")
