/* The C reference: one run on libmosquitto, the client library of Eclipse Mosquitto.
 *
 *   cmosq PORT publish|receive QOS INFLIGHT COUNT PAYLOAD_SIZE TOPIC
 *
 * Prints the CPU time and the wall time from the first publish (or SUBSCRIBE) to the last acknowledgement
 * (or callback) in seconds. It gets the treatment that costs the library least: one thread, so that
 * mosquitto_publish() writes to the socket itself; Nagle's algorithm on, as it comes, so that the kernel joins
 * those writes (TCP_NODELAY costs it up to four times the CPU); never more messages outstanding than the
 * window, so that nothing is queued inside.
 *
 *   cc -O2 -o cmosq cmosq.c -lmosquitto
 */
#include <mosquitto.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static int connected, done;

static void die(const char *what, int code) {
    fprintf(stderr, "cmosq: %s: %s\n", what, mosquitto_strerror(code));
    exit(1);
}

static void on_connect(struct mosquitto *m, void *data, int code) {
    (void)m, (void)data;
    if (code) die("connect", MOSQ_ERR_CONN_REFUSED);
    connected = 1;
}

static void on_publish(struct mosquitto *m, void *data, int packet_id) {
    (void)m, (void)data, (void)packet_id;
    done++;
}

static void on_message(struct mosquitto *m, void *data, const struct mosquitto_message *message) {
    (void)m, (void)data, (void)message;
    done++;
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static double wall_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void turn(struct mosquitto *m) {
    int code = mosquitto_loop(m, 1000, 1);
    if (code) die("loop", code);
}

static void publish(struct mosquitto *m, int qos, int inflight, int count, int size, const char *topic) {
    char *payload = calloc(1, size ? size : 1);
    for (int sent = 0; done < count;) {
        for (; sent < count && (!qos || sent - done < inflight); sent++) {
            int code = mosquitto_publish(m, NULL, topic, size, payload, qos, 0);
            if (code) die("publish", code);
            /* At QoS 0 the library must be let in now and then; what the kernel refused waits in it. */
            if (!qos && sent % 64 == 63 && mosquitto_want_write(m)) turn(m);
        }
        if (done < count) turn(m);
    }
    free(payload);
}

static void receive(struct mosquitto *m, int qos, int count, const char *topic) {
    int code = mosquitto_subscribe(m, NULL, topic, qos);
    if (code) die("subscribe", code);
    while (done < count || mosquitto_want_write(m)) turn(m);
}

int main(int argc, char **argv) {
    if (argc != 8) {
        fprintf(stderr, "usage: cmosq PORT publish|receive QOS INFLIGHT COUNT PAYLOAD_SIZE TOPIC\n");
        return 2;
    }
    int qos = atoi(argv[3]), inflight = atoi(argv[4]), count = atoi(argv[5]), size = atoi(argv[6]);
    mosquitto_lib_init();
    struct mosquitto *m = mosquitto_new("benchmark-cmosq", 1, NULL);
    if (!m) die("new", MOSQ_ERR_NOMEM);
    mosquitto_int_option(m, MOSQ_OPT_SEND_MAXIMUM, inflight);
    mosquitto_connect_callback_set(m, on_connect);
    mosquitto_publish_callback_set(m, on_publish);
    mosquitto_message_callback_set(m, on_message);
    int code = mosquitto_connect(m, "127.0.0.1", atoi(argv[1]), 60);
    if (code) die("connect", code);
    while (!connected) turn(m);
    double cpu = cpu_seconds(), wall = wall_seconds();
    if (!strcmp(argv[2], "publish")) publish(m, qos, inflight, count, size, argv[7]);
    else receive(m, qos, count, argv[7]);
    wall = wall_seconds() - wall;
    printf("{\"cpu\": %.6f, \"wall\": %.6f}\n", cpu_seconds() - cpu, wall);
    mosquitto_disconnect(m);
    return 0;
}
