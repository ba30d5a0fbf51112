/* Paho C (MQTTAsync) as a puppet: orders on standard input, reports on standard output, a form a line; see
 * ../puppets/lines.py. Started as `puppet HOST:PORT CA CERT KEY`.
 *
 * Paho calls back in a thread of its own. The test waits for each report before it gives the next order, so this
 * thread and the callbacks never use the client at the same time; only writing is shared, and a line is one write.
 */

#include <MQTTAsync.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEEP_ALIVE_S = 30, WINDOW = 1000, URI_BYTES = 256 };

static const char *address, *trusted, *certificate, *private_key;
static MQTTAsync client;
static int is_5;
static int told_end; /* of this connection; Paho may tell it twice */

/* -- lines */

typedef struct {
    char *text;
    size_t used;
    size_t room;
} Line;

static void add(Line *line, const void *bytes, size_t count) {
    if (line->used + count > line->room) {
        line->room = 2 * (line->used + count);
        line->text = realloc(line->text, line->room);
        if (line->text == NULL) abort();
    }
    memcpy(line->text + line->used, bytes, count);
    line->used += count;
}

static void add_name(Line *line, const char *name) {
    if (line->used) add(line, "&", 1);
    add(line, name, strlen(name));
    add(line, "=", 1);
}

static void add_escaped(Line *line, const char *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        char escaped[4];
        unsigned char byte = (unsigned char)bytes[i];
        if (isalnum(byte)) {
            add(line, &bytes[i], 1);
        } else {
            snprintf(escaped, sizeof escaped, "%%%02X", byte);
            add(line, escaped, 3);
        }
    }
}

static void add_text(Line *line, const char *name, const char *text) {
    add_name(line, name);
    add_escaped(line, text, strlen(text));
}

static void add_number(Line *line, const char *name, int number) {
    char text[16];
    snprintf(text, sizeof text, "%d", number);
    add_name(line, name);
    add(line, text, strlen(text));
}

static void add_hex(Line *line, const char *name, const void *bytes, size_t count) {
    static const char digits[] = "0123456789abcdef";
    const unsigned char *from = bytes;
    add_name(line, name);
    for (size_t i = 0; i < count; i++) {
        char pair[2] = {digits[from[i] >> 4], digits[from[i] & 15]};
        add(line, pair, 2);
    }
}

static void say(Line *line) {
    add(line, "\n", 1);
    for (size_t done = 0; done < line->used;) {
        ssize_t wrote = write(STDOUT_FILENO, line->text + done, line->used - done);
        if (wrote <= 0) exit(1);
        done += (size_t)wrote;
    }
    free(line->text);
}

static int digit(char text) { return isdigit((unsigned char)text) ? text - '0' : tolower(text) - 'a' + 10; }

/* The value of the `nth` field with this name, unescaped, to be freed; an empty one when it is absent. */
static char *field(const char *order, const char *name, int nth) {
    size_t width = strlen(name);
    for (const char *at = order; at != NULL; at = strchr(at, '&') ? strchr(at, '&') + 1 : NULL) {
        if (strncmp(at, name, width) != 0 || at[width] != '=' || nth-- > 0) continue;
        at += width + 1;
        size_t count = strcspn(at, "&\n"), to = 0;
        char *value = malloc(count + 1);
        if (value == NULL) abort();
        for (size_t i = 0; i < count; i++) {
            if (at[i] == '%') {
                value[to++] = (char)(digit(at[i + 1]) << 4 | digit(at[i + 2]));
                i += 2;
            } else {
                value[to++] = at[i] == '+' ? ' ' : at[i];
            }
        }
        value[to] = '\0';
        return value;
    }
    return calloc(1, 1);
}

static int number(const char *order, const char *name) {
    char *text = field(order, name, 0);
    int value = atoi(text);
    free(text);
    return value;
}

/* Bytes from hexadecimal, in place. */
static int unhex(char *text) {
    size_t count = strlen(text) / 2;
    for (size_t i = 0; i < count; i++) text[i] = (char)(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
    return (int)count;
}

/* -- what happened; the context of a request is the kind of its order */

static void report(const char *kind, int reason, const char *error) {
    Line line = {0};
    add_text(&line, "is", kind);
    add_number(&line, "reason", reason);
    add_text(&line, "error", error == NULL ? "" : error);
    say(&line);
}

static void succeeded(void *kind, MQTTAsync_successData *data) {
    Line line = {0};
    add_text(&line, "is", kind);
    if (data != NULL && strcmp(kind, "subscribe") == 0) add_number(&line, "reason", data->alt.qos);
    if (data != NULL && strcmp(kind, "connect") == 0) {
        add_number(&line, "reason", 0);
        add_number(&line, "present", data->alt.connect.sessionPresent);
    }
    say(&line);
}

static void failed(void *kind, MQTTAsync_failureData *data) {
    /* Of a SUBACK with 0x80 Paho says MQTTASYNC_FAILURE and nothing else. */
    report(kind, strcmp(kind, "subscribe") == 0 ? 0x80 : data->code, data->message);
}

static void succeeded_5(void *kind, MQTTAsync_successData5 *data) {
    Line line = {0};
    add_text(&line, "is", kind);
    add_number(&line, "reason", data == NULL ? 0 : (int)data->reasonCode);
    if (data != NULL && strcmp(kind, "connect") == 0) add_number(&line, "present", data->alt.connect.sessionPresent);
    say(&line);
}

static void failed_5(void *kind, MQTTAsync_failureData5 *data) { report(kind, data->reasonCode, data->message); }

static void lost(void *context, char *cause) {
    (void)context;
    if (!told_end) report("ended", -1, cause);
    told_end = 1;
}

static void disconnected(void *context, MQTTProperties *properties, enum MQTTReasonCodes reason) {
    (void)context, (void)properties;
    if (!told_end) report("ended", reason, NULL);
    told_end = 1;
}

static int arrived(void *context, char *topic, int topic_bytes, MQTTAsync_message *message) {
    (void)context;
    Line line = {0};
    add_text(&line, "is", "message");
    add_name(&line, "topic");
    add_escaped(&line, topic, topic_bytes ? (size_t)topic_bytes : strlen(topic));
    add_hex(&line, "payload", message->payload, (size_t)message->payloadlen);
    add_number(&line, "qos", message->qos);
    add_number(&line, "retain", message->retained);
    for (int i = 0; i < message->properties.count; i++) {
        MQTTProperty *property = &message->properties.array[i];
        MQTTLenString *data = &property->value.data, *value = &property->value.value;
        if (property->identifier == MQTTPROPERTY_CODE_USER_PROPERTY) {
            add_name(&line, "user");
            add_escaped(&line, data->data, (size_t)data->len);
            add_escaped(&line, "=", 1);
            add_escaped(&line, value->data, (size_t)value->len);
        } else if (property->identifier == MQTTPROPERTY_CODE_RESPONSE_TOPIC) {
            add_name(&line, "response_topic");
            add_escaped(&line, data->data, (size_t)data->len);
        } else if (property->identifier == MQTTPROPERTY_CODE_CORRELATION_DATA) {
            add_hex(&line, "correlation", data->data, (size_t)data->len);
        }
    }
    say(&line);
    MQTTAsync_freeMessage(&message);
    MQTTAsync_free(topic);
    return 1;
}

/* -- orders */

static void expect(int code, const char *kind) {
    if (code != MQTTASYNC_SUCCESS) report(kind, -1, MQTTAsync_strerror(code));
}

static MQTTAsync_responseOptions answered_as(char *kind) {
    MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;
    options.context = kind;
    if (is_5) {
        options.onSuccess5 = succeeded_5;
        options.onFailure5 = failed_5;
    } else {
        options.onSuccess = succeeded;
        options.onFailure = failed;
    }
    return options;
}

static void do_connect(const char *order) {
    char uri[URI_BYTES];
    char *id = field(order, "id", 0), *topic = field(order, "topic", 0), *payload = field(order, "payload", 0);
    is_5 = number(order, "version") == MQTTVERSION_5;
    if (client != NULL) MQTTAsync_destroy(&client);
    told_end = 0;
    snprintf(uri, sizeof uri, "ssl://%s", address);
    MQTTAsync_createOptions made_for = MQTTAsync_createOptions_initializer;
    made_for.MQTTVersion = is_5 ? MQTTVERSION_5 : MQTTVERSION_3_1_1;
    expect(MQTTAsync_createWithOptions(&client, uri, id, MQTTCLIENT_PERSISTENCE_NONE, NULL, &made_for), "connect");
    MQTTAsync_setCallbacks(client, NULL, lost, arrived, NULL);
    MQTTAsync_setDisconnected(client, NULL, disconnected);

    MQTTAsync_SSLOptions tls = MQTTAsync_SSLOptions_initializer;
    tls.trustStore = trusted;
    tls.keyStore = certificate;
    tls.privateKey = private_key;
    tls.verify = 1;
    MQTTAsync_willOptions will = MQTTAsync_willOptions_initializer;
    will.topicName = topic;
    will.payload.data = payload;
    will.payload.len = unhex(payload);
    will.qos = number(order, "qos");
    will.retained = number(order, "retain");
    MQTTProperty expiry = {.identifier = MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL,
                           .value.integer4 = (unsigned int)number(order, "expiry")};
    MQTTProperties asked = MQTTProperties_initializer;
    MQTTProperties_add(&asked, &expiry);

    MQTTAsync_connectOptions options = MQTTAsync_connectOptions_initializer;
    MQTTAsync_connectOptions options_5 = MQTTAsync_connectOptions_initializer5;
    if (is_5) {
        options = options_5;
        options.cleanstart = number(order, "clean");
        options.connectProperties = &asked;
        options.onSuccess5 = succeeded_5;
        options.onFailure5 = failed_5;
    } else {
        options.MQTTVersion = MQTTVERSION_3_1_1;
        options.cleansession = number(order, "clean");
        options.onSuccess = succeeded;
        options.onFailure = failed;
    }
    options.keepAliveInterval = KEEP_ALIVE_S;
    options.maxInflight = WINDOW;
    options.ssl = &tls;
    options.will = number(order, "will") ? &will : NULL;
    options.context = "connect";
    expect(MQTTAsync_connect(client, &options), "connect");
    MQTTProperties_free(&asked);
    free(id), free(topic), free(payload);
}

static void do_publish(const char *order) {
    char *topic = field(order, "topic", 0), *payload = field(order, "payload", 0);
    char *to = field(order, "response_topic", 0), *correlation = field(order, "correlation", 0);
    MQTTAsync_message message = MQTTAsync_message_initializer;
    message.payloadlen = unhex(payload);
    message.payload = payload;
    message.qos = number(order, "qos");
    message.retained = number(order, "retain");
    if (is_5 && *to) {
        MQTTProperty topic_of_answer = {.identifier = MQTTPROPERTY_CODE_RESPONSE_TOPIC,
                                        .value.data = {(int)strlen(to), to}};
        MQTTProperty correlation_data = {.identifier = MQTTPROPERTY_CODE_CORRELATION_DATA,
                                         .value.data = {unhex(correlation), correlation}};
        MQTTProperties_add(&message.properties, &topic_of_answer);
        MQTTProperties_add(&message.properties, &correlation_data);
    }
    for (int nth = 0; is_5; nth++) {
        char *user = field(order, "user", nth), *equals = strchr(user, '=');
        if (equals != NULL) {
            MQTTProperty property = {.identifier = MQTTPROPERTY_CODE_USER_PROPERTY,
                                     .value.data = {(int)(equals - user), user},
                                     .value.value = {(int)strlen(equals + 1), equals + 1}};
            MQTTProperties_add(&message.properties, &property);
        }
        free(user);
        if (equals == NULL) break;
    }
    MQTTAsync_responseOptions options = answered_as("publish");
    expect(MQTTAsync_sendMessage(client, topic, &message, &options), "publish");
    MQTTProperties_free(&message.properties);
    free(topic), free(payload), free(to), free(correlation);
}

static void do_subscribe(const char *order) {
    char *topic = field(order, "topic", 0);
    MQTTAsync_responseOptions options = answered_as("subscribe");
    expect(MQTTAsync_subscribe(client, topic, number(order, "qos"), &options), "subscribe");
    free(topic);
}

static void do_unsubscribe(const char *order) {
    char *topic = field(order, "topic", 0);
    MQTTAsync_responseOptions options = answered_as("unsubscribe");
    expect(MQTTAsync_unsubscribe(client, topic, &options), "unsubscribe");
    free(topic);
}

static void do_disconnect(void) {
    MQTTAsync_disconnectOptions options = MQTTAsync_disconnectOptions_initializer;
    MQTTAsync_disconnectOptions options_5 = MQTTAsync_disconnectOptions_initializer5;
    if (is_5) {
        options = options_5;
        options.onSuccess5 = succeeded_5;
        options.onFailure5 = failed_5;
    } else {
        options.onSuccess = succeeded;
        options.onFailure = failed;
    }
    options.context = "disconnect";
    expect(MQTTAsync_disconnect(client, &options), "disconnect");
}

static void obey(const char *order) {
    char *kind = field(order, "do", 0);
    if (strcmp(kind, "connect") == 0) do_connect(order);
    if (strcmp(kind, "publish") == 0) do_publish(order);
    if (strcmp(kind, "subscribe") == 0) do_subscribe(order);
    if (strcmp(kind, "unsubscribe") == 0) do_unsubscribe(order);
    if (strcmp(kind, "disconnect") == 0) do_disconnect();
    free(kind);
}

int main(int argc, char **argv) {
    char *order = NULL;
    size_t room = 0;
    if (argc != 5) return 2;
    address = argv[1], trusted = argv[2], certificate = argv[3], private_key = argv[4];
    MQTTAsync_init_options threads = MQTTAsync_init_options_initializer;
    threads.do_openssl_init = 1;
    MQTTAsync_global_init(&threads);
    while (getline(&order, &room, stdin) > 0) obey(order);
    free(order);
    return 0;
}
