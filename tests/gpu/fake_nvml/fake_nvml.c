/* A library that speaks the part of NVML's ABI that is used here (nvml.h of CUDA 12) and answers what a file says.
 *
 * The file is named by FAKE_NVML, or is libnvidia-ml.conf beside this library. Each line is a key and a value:
 *
 *   count 2                           how many GPUs there are
 *   driver 535.104.05                 nvml 12.535.104.05                 cuda 12020
 *   gpu0.name NVIDIA A100             gpu0.uuid GPU-...                  gpu0.total BYTES     gpu0.free BYTES
 *   gpu0.capability 80                gpu0.mode 0                        gpu0.mig 1 (absent: not supported)
 *   gpu0.instances 2                  gpu0.instance1.uuid MIG-...        gpu0.instance1.total BYTES
 *   FUNCTION.code N                   what the function returns          FUNCTION.0.code N    for GPU 0 only
 *   FUNCTION.delay MS                 how long it takes first            FUNCTION.0.delay MS
 *   log PATH                          append "PID FUNCTION" per call
 */
/* Not _GNU_SOURCE: with it, a C library of 2023 or later binds numbers' readers that the image's older one lacks. */
#define _DEFAULT_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* As in <dlfcn.h>, which shows it to _GNU_SOURCE only. */
typedef struct { const char *dli_fname; void *dli_fbase; const char *dli_sname; void *dli_saddr; } Dl_info;
int dladdr(const void *address, Dl_info *info);

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, MISMATCH = 25 };

struct entry { char key[96]; char value[256]; };
static struct entry entries[256];
static int entry_count;
static int references;

/* A handle is an address in this array: one slot per GPU, and 16 per GPU for its MIG instances. */
static struct device { int gpu; int instance; } devices[64 * 17];
typedef struct device *handle_t;

__attribute__((constructor)) static void read_answers(void)
{
    char path[4096] = "";
    const char *named = getenv("FAKE_NVML");
    Dl_info self;
    if (named)
        snprintf(path, sizeof path, "%s", named);
    else if (dladdr((void *)read_answers, &self)) {
        snprintf(path, sizeof path - 32, "%s", self.dli_fname);
        char *slash = strrchr(path, '/');
        strcpy(slash ? slash + 1 : path, "libnvidia-ml.conf");
    }
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    while (entry_count < 256 && fscanf(file, " %95s %255[^\n]", entries[entry_count].key, entries[entry_count].value) == 2)
        entry_count++;
    fclose(file);
}

static const char *text_of(const char *key, const char *otherwise)
{
    for (int i = 0; i < entry_count; i++)
        if (!strcmp(entries[i].key, key))
            return entries[i].value;
    return otherwise;
}

static const char *text_at(handle_t device, const char *field, const char *otherwise)
{
    char key[128];
    if (device->instance < 0)
        snprintf(key, sizeof key, "gpu%d.%s", device->gpu, field);
    else
        snprintf(key, sizeof key, "gpu%d.instance%d.%s", device->gpu, device->instance, field);
    return text_of(key, otherwise);
}

static long long number_at(handle_t device, const char *field, long long otherwise)
{
    const char *value = text_at(device, field, NULL);
    return value ? atoll(value) : otherwise;
}

static int enter(const char *function, int gpu)
{
    char key[128];
    const char *log = text_of("log", NULL);
    if (log) {
        int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        char line[128];
        int length = snprintf(line, sizeof line, "%d %s\n", (int)getpid(), function);
        if (out < 0 || write(out, line, length) != length)
            abort();
        close(out);
    }
    snprintf(key, sizeof key, "%s.%d.delay", function, gpu);
    const char *value = text_of(key, NULL);
    if (!value) {
        snprintf(key, sizeof key, "%s.delay", function);
        value = text_of(key, "0");
    }
    long ms = atol(value);
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    if (ms)
        nanosleep(&pause, NULL);
    snprintf(key, sizeof key, "%s.%d.code", function, gpu);
    value = text_of(key, NULL);
    if (!value) {
        snprintf(key, sizeof key, "%s.code", function);
        value = text_of(key, "0");
    }
    return atoi(value);
}

#define ENTER(gpu)                               \
    do {                                         \
        int code = enter(__func__, gpu);         \
        if (code)                                \
            return code;                         \
        if (references == 0)                     \
            return UNINITIALIZED;                \
    } while (0)

static int copy(char *out, unsigned length, const char *text)
{
    if (strlen(text) >= length)
        return 7; /* insufficient size */
    strcpy(out, text);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags)
{
    int code = enter(__func__, -1);
    (void)flags;
    references += !code;
    return code;
}

int nvmlInit_v2(void)
{
    int code = enter(__func__, -1);
    references += !code;
    return code;
}

int nvmlShutdown(void)
{
    ENTER(-1);
    references--;
    return SUCCESS;
}

const char *nvmlErrorString(int code)
{
    switch (code) { /* as libnvidia-ml 535 has them */
    case 0: return "Success";
    case 1: return "Uninitialized";
    case 2: return "Invalid Argument";
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 6: return "Not Found";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 17: return "The operating system has blocked the request";
    case 18: return "Driver/library version mismatch";
    case 20: return "Insufficient Memory";
    case 999: return "Unknown Error";
    default: return "An unlisted error";
    }
}

int nvmlSystemGetDriverVersion(char *out, unsigned length)
{
    ENTER(-1);
    return copy(out, length, text_of("driver", "535.104.05"));
}

int nvmlSystemGetNVMLVersion(char *out, unsigned length)
{
    ENTER(-1);
    return copy(out, length, text_of("nvml", "12.535.104.05"));
}

int nvmlSystemGetCudaDriverVersion(int *version)
{
    ENTER(-1);
    *version = atoi(text_of("cuda", "12020"));
    return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    ENTER(-1);
    *version = atoi(text_of("cuda", "12020"));
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    ENTER(-1);
    *count = atoi(text_of("count", "1"));
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle_t *device)
{
    ENTER((int)index);
    if (index >= (unsigned)atoi(text_of("count", "1")) || index >= 64)
        return INVALID_ARGUMENT;
    devices[index] = (struct device){(int)index, -1};
    *device = &devices[index];
    return SUCCESS;
}

int nvmlDeviceGetName(handle_t device, char *out, unsigned length)
{
    ENTER(device->gpu);
    return copy(out, length, text_at(device, "name", "NVIDIA A100-SXM4-40GB"));
}

static const char *uuid(handle_t device)
{
    static char made[64];
    int mig = device->instance >= 0;
    snprintf(made, sizeof made, "%s-%08d-0000-0000-0000-%012d", mig ? "MIG" : "GPU", device->gpu, mig ? device->instance : 0);
    return text_at(device, "uuid", made);
}

int nvmlDeviceGetUUID(handle_t device, char *out, unsigned length)
{
    ENTER(device->gpu);
    return copy(out, length, uuid(device));
}

int nvmlDeviceGetHandleByUUID(const char *wanted, handle_t *device)
{
    ENTER(-1);
    for (unsigned i = 0; i < (unsigned)atoi(text_of("count", "1")); i++) {
        devices[i] = (struct device){(int)i, -1};
        if (!strcmp(uuid(&devices[i]), wanted)) {
            *device = &devices[i];
            return SUCCESS;
        }
    }
    return NOT_FOUND;
}

struct memory { unsigned long long total, free, used; };
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };

int nvmlDeviceGetMemoryInfo(handle_t device, struct memory *memory)
{
    ENTER(device->gpu);
    memory->total = number_at(device, "total", 40LL << 30);
    memory->free = number_at(device, "free", memory->total);
    memory->used = memory->total - memory->free;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(handle_t device, struct memory_v2 *memory)
{
    ENTER(device->gpu);
    if (memory->version != (sizeof *memory | 2u << 24))
        return MISMATCH;
    memory->total = number_at(device, "total", 40LL << 30);
    memory->free = number_at(device, "free", memory->total);
    memory->reserved = 0;
    memory->used = memory->total - memory->free;
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(handle_t device, int *major, int *minor)
{
    ENTER(device->gpu);
    *major = (int)number_at(device, "capability", 80) / 10;
    *minor = (int)number_at(device, "capability", 80) % 10;
    return SUCCESS;
}

int nvmlDeviceGetComputeMode(handle_t device, unsigned *mode)
{
    ENTER(device->gpu);
    *mode = number_at(device, "mode", 0);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(handle_t device, unsigned *current, unsigned *pending)
{
    ENTER(device->gpu);
    if (number_at(device, "mig", -1) < 0)
        return NOT_SUPPORTED;
    *current = *pending = number_at(device, "mig", 0);
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(handle_t device, unsigned *count)
{
    ENTER(device->gpu);
    *count = number_at(device, "mig", -1) < 0 ? 0 : 7;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(handle_t device, unsigned index, handle_t *instance)
{
    ENTER(device->gpu);
    if (index >= 16 || index >= number_at(device, "instances", 0))
        return NOT_FOUND;
    *instance = &devices[64 + device->gpu * 16 + index];
    **instance = (struct device){device->gpu, (int)index};
    return SUCCESS;
}

/* What no check may ever call: it would start CUDA. */
int cuInit(unsigned flags)
{
    (void)flags;
    abort();
}
