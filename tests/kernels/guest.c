/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads a BPF object and says how it went, one line per fact, for boot.py to read:
 *
 *   kernel RELEASE
 *   program NAME INSTRUCTIONS PROCESSED STATES VERIFY_US   (the verifier accepted it)
 *   run NAME PACKET VERDICT                                (BPF_PROG_TEST_RUN)
 *   attached NAME tcx|clsact passes|drops                  (attach.c)
 *   failed WHAT: WHY
 *   libbpf: LINE
 *   verifier LINE                                          (the end of its log, when it refused)
 *   done
 *
 * On the running kernel it is an ordinary program.  As process 1 of a virtual machine
 * it mounts what libbpf needs, loads the modules it was given, and switches the machine off at the
 * end.
 *
 * Linked statically: it is the only file in the machine beside the object.
 */
#include "attach.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <fcntl.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

enum {
	PROGRAMS_MAX = 16,
	LOG_SIZE = 16 << 20,
	LOG_PATH = 1,	    /* log_level: the instructions that the verifier walks */
	LOG_STATS = 4,	    /* log_level: statistics at the end */
	ENTRIES_MAX = 1024, /* of a hash map: the memory of a small machine */
	REFUSAL_LINES = 40,
};

struct packet {
	const char *name;
	unsigned int len;
	unsigned char bytes[160];
};

/* From an interface that yett knows nothing of: ARP, and the first packet of a request. */
static const struct packet packets[] = {
	{"arp", 42,
	 "\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x08\x06"
	 "\0\x01\x08\0\x06\x04\0\x01\x02\0\0\0\0\x01\x0a\0\0\x01\0\0\0\0\0\0\x0a\0\0\x02"},
	{"tcp4", 54 + 18,
	 "\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0"
	 "\x45\0\0\x3a\0\x01\x40\0\x40\x06\0\0\x0a\0\0\x01\x0a\0\0\x02"
	 "\x9c\x40\x1f\x90\0\0\0\x01\0\0\0\x01\x50\x18\x02\0\0\0\0\0"
	 "GET / HTTP/1.1\r\n\r\n"},
	{"tcp6", 74 + 18,
	 "\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x86\xdd"
	 "\x60\0\0\0\0\x26\x06\x40"
	 "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02"
	 "\x9c\x40\x1f\x90\0\0\0\x01\0\0\0\x01\x50\x18\x02\0\0\0\0\0"
	 "GET / HTTP/1.1\r\n\r\n"},
};

static char *logs[PROGRAMS_MAX];

int failed(const char *what)
{
	printf("failed %s: %s\n", what, strerror(errno));
	return 1;
}

static int print_warnings(enum libbpf_print_level level, const char *format, va_list args)
{
	if (level != LIBBPF_WARN || strstr(format, "BEGIN PROG LOAD LOG"))
		return 0; /* the log is printed by refusal() */
	return vprintf(format, args);
}

/* The last lines of the verifier's log: they hold the reason. */
static void refusal(const char *log)
{
	const char *line = log + strlen(log);
	int lines = 0;

	while (line > log && lines <= REFUSAL_LINES)
		if (*--line == '\n')
			lines++;
	while (*line) {
		size_t len = strcspn(line, "\n");

		if (len)
			printf("verifier %.*s\n", (int)len, line);
		line += len + (line[len] == '\n');
	}
}

static bool is_hash(enum bpf_map_type type)
{
	return type == BPF_MAP_TYPE_HASH || type == BPF_MAP_TYPE_LRU_HASH ||
	       type == BPF_MAP_TYPE_LPM_TRIE || type == BPF_MAP_TYPE_PERCPU_HASH;
}

static void shrink_maps(struct bpf_object *object)
{
	struct bpf_map *map;

	bpf_object__for_each_map (map, object) {
		if (is_hash(bpf_map__type(map)) && bpf_map__max_entries(map) > ENTRIES_MAX)
			bpf_map__set_max_entries(map, ENTRIES_MAX);
		bpf_map__set_pin_path(map, NULL);
	}
}

static int keep_logs(struct bpf_object *object, int level)
{
	struct bpf_program *program;
	int n = 0;

	bpf_object__for_each_program (program, object) {
		if (n == PROGRAMS_MAX || (!logs[n] && !(logs[n] = calloc(1, LOG_SIZE)))) {
			errno = ENOMEM;
			return failed("keep the verifier's logs");
		}
		bpf_program__set_log_buf(program, logs[n++], LOG_SIZE);
		bpf_program__set_log_level(program, level);
	}
	return 0;
}

static unsigned long number_after(const char *log, const char *label)
{
	const char *found = strstr(log, label);

	return found ? strtoul(found + strlen(label), NULL, 10) : 0;
}

static int report(const struct bpf_program *program, const char *log)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &len))
		return failed("read the program's information");
	printf("program %s %u %lu %lu %lu\n", bpf_program__name(program),
	       (unsigned int)(info.xlated_prog_len / sizeof(struct bpf_insn)),
	       number_after(log, "processed "), number_after(log, "total_states "),
	       number_after(log, "verification time "));
	return 0;
}

static int run(const struct bpf_program *program, const struct packet *packet)
{
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet->bytes,
		    .data_size_in = packet->len, .repeat = 1);

	if (bpf_prog_test_run_opts(bpf_program__fd(program), &options))
		return failed("run a program on a packet");
	printf("run %s %s %d\n", bpf_program__name(program), packet->name, (int)options.retval);
	return 0;
}

/* The object with its programs in the kernel, or NULL after a line that says why not. */
static struct bpf_object *load(const char *path, int log_level)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);

	if (!object) {
		failed("open the object");
		return NULL;
	}
	shrink_maps(object);
	if (!keep_logs(object, log_level)) {
		if (!bpf_object__load(object))
			return object;
		failed("load the programs");
	}
	bpf_object__close(object);
	return NULL;
}

/* Loads again with a log of each instruction, for the lines that lead to the refusal. */
static int explain(const char *path)
{
	libbpf_set_print(NULL);
	bpf_object__close(load(path, LOG_PATH | LOG_STATS));
	for (int n = 0; n < PROGRAMS_MAX && logs[n]; n++)
		refusal(logs[n]);
	return 1;
}

static int examine(const char *path)
{
	struct bpf_object *object = load(path, LOG_STATS);
	struct bpf_program *program;
	int status = 0, n = 0;

	if (!object)
		return explain(path);
	bpf_object__for_each_program (program, object) {
		status |= report(program, logs[n++]);
		for (unsigned int i = 0; i < sizeof(packets) / sizeof(packets[0]); i++)
			status |= run(program, &packets[i]);
		status |= attach_and_send(program);
	}
	bpf_object__close(object);
	return status;
}

static int prepare_machine(void)
{
	static const char *const mounts[][2] = {
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"bpf", "/sys/fs/bpf"}};

	for (unsigned int i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i][1], 0755);
		if (mount(mounts[i][0], mounts[i][1], mounts[i][0], 0, NULL) && errno != EBUSY)
			return failed(mounts[i][1]);
	}
	return 0;
}

/* What the kernel has as modules, in the order of the names. */
static int load_modules(const char *directory)
{
	struct dirent **entries;
	char path[512];
	int status = 0;
	int n = scandir(directory, &entries, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		int fd;

		if (entries[i]->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, entries[i]->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
			status = failed(path);
		close(fd);
	}
	return status;
}

int main(int argc, char **argv)
{
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	bool machine = getpid() == 1;
	struct utsname name;
	int status = 0;

	if (machine)
		status = prepare_machine() || load_modules("/modules");
	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	setvbuf(stdout, NULL, _IOLBF, 0);
	libbpf_set_print(print_warnings);
	uname(&name);
	printf("kernel %s\n", name.release);
	if (!status)
		status = examine(machine || argc < 2 ? "/yett.bpf.o" : argv[1]);
	puts("done");
	if (machine) {
		sync();
		reboot(RB_POWER_OFF);
	}
	return status;
}
