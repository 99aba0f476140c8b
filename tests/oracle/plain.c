/* The host `plain`: a C program that needs only libc and calls dlopen itself.

   plain STEPS OUT [USED OPTIONAL]: runs the steps of the file STEPS (one a line, in the grammar of the command line) in
   this one process and writes what happened to OUT, a record a line, flushed at once so that a death is attributable:
     begin N / maps LINK-MAP:HEX-OF-PATH... / loads N / fails N HEX-OF-DLERROR (or -) / tls SIZE ALIGN USED OPTIONAL
   USED and OPTIONAL are byte offsets of two words in _rtld_global (they differ by release; the caller knows them).

   Compiled with -DSHIM it is no program but a library for LD_PRELOAD, which makes any program a host: its constructor
   runs when everything that the program starts with is mapped and relocated, does the same with the arguments in
   DLWHY_STEPS, DLWHY_REPORT, DLWHY_USED and DLWHY_OPTIONAL, and ends the process before the program's own code. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef __GLIBC__ /* musl: one namespace, and modes that it does not look at */
typedef long Lmid_t;
enum { LM_ID_BASE = 0, LM_ID_NEWLM = -1 };
#define dlmopen(space, name, mode) dlopen(name, mode)
#define RTLD_DEEPBIND 8
#endif

static FILE *out;
static struct r_debug *debug; /* looked up: a reference would make this program need ld.so itself; musl has none */

static struct link_map *spaces[16]; /* one object of each further namespace; its handle is never closed */
static int spaces_used;

static void chain(struct link_map *l) {
  for (; l; l = l->l_next)
    if (strncmp(l->l_name, "linux-vdso", 10) && strncmp(l->l_name, "linux-gate", 10) && (*l->l_name || !l->l_prev)) {
      /* not what the kernel maps: linux-gate on i386, nameless under musl */
      fprintf(out, " %lx:", (unsigned long)l); /* two namespaces may hold objects of one name */
      for (const char *p = l->l_name; *p; p++) fprintf(out, "%02x", (unsigned char)*p);
    }
}

static void maps(void) {
  fputs("maps", out);
  chain(debug ? debug->r_map : dlopen(0, RTLD_LAZY)); /* the handle of the program is its link map */
  for (int i = 0; i < spaces_used; i++) {
    struct link_map *head = spaces[i];
    while (head->l_prev) head = head->l_prev;
    chain(head);
  }
  fputc('\n', out);
  fflush(out);
}

static void failed(int n, const char *message) {
  fprintf(out, "fails %d ", n);
  if (!message) fputc('-', out);
  else
    for (; *message; message++) fprintf(out, "%02x", (unsigned char)*message);
  fputc('\n', out);
  fflush(out);
}

static int work(const char *from, const char *to, const char *used, const char *optional) {
  static char line[65536];
  static void *handles[4096];
  FILE *steps = fopen(from, "r");
  out = fopen(to, "w");
  if (!steps || !out) return 99;
  debug = dlsym(RTLD_DEFAULT, "_r_debug");
  char *global = dlsym(RTLD_DEFAULT, "_rtld_global");
  void (*info)(size_t *, size_t *) = (void (*)(size_t *, size_t *))dlsym(RTLD_DEFAULT, "_dl_get_tls_static_info");
  maps();
  for (int n = 1; fgets(line, sizeof line, steps); n++) {
    line[strcspn(line, "\n")] = 0;
    fprintf(out, "begin %d\n", n);
    fflush(out);
    char *colon = strchr(line, ':'), *name = line;
    int mode = RTLD_NOW, which = 0;
    Lmid_t space = LM_ID_BASE;
    if (!strncmp(line, "close:", 6)) {
      which = atoi(line + 6);
      if (!handles[which]) failed(n, 0);
      else if (dlclose(handles[which])) failed(n, dlerror());
      else fprintf(out, "loads %d\n", n);
    } else if (!strncmp(line, "sym:", 4) || !strncmp(line, "call:", 5)) {
      which = atoi(colon + 1);
      name = strchr(colon + 1, ':') + 1;
      void *found = handles[which] ? dlsym(handles[which], name) : 0;
      if (!found) failed(n, handles[which] ? dlerror() : 0);
      else {
        if (line[0] == 'c') ((void (*)(void))found)();
        fprintf(out, "loads %d\n", n);
      }
    } else {
      if (colon) {
        int bits = 0, all = 1, any = 0;
        static char words[4096];
        strncpy(words, line, sizeof words - 1);
        words[strcspn(words, ":")] = 0;
        for (char *w = strtok(words, "-"); w; w = strtok(0, "-")) {
          any = 1;
          if (!strcmp(w, "now")) bits |= RTLD_NOW;
          else if (!strcmp(w, "lazy")) bits |= RTLD_LAZY;
          else if (!strcmp(w, "global")) bits |= RTLD_GLOBAL;
          else if (!strcmp(w, "local")) bits |= RTLD_LOCAL;
          else if (!strcmp(w, "deepbind")) bits |= RTLD_DEEPBIND;
          else if (!strcmp(w, "nodelete")) bits |= RTLD_NODELETE;
          else if (!strcmp(w, "noload")) bits |= RTLD_NOLOAD;
          else if (!strcmp(w, "newns")) space = LM_ID_NEWLM;
          else all = 0;
        }
        if (all && any) {
          mode = bits;
          if (!(mode & (RTLD_NOW | RTLD_LAZY))) mode |= RTLD_NOW;
          name = colon + 1;
        }
      }
      dlerror();
      handles[n] = space == LM_ID_BASE ? dlopen(name, mode) : dlmopen(space, name, mode);
      if (handles[n] && space != LM_ID_BASE && spaces_used < 16) spaces[spaces_used++] = handles[n];
      if (!handles[n]) failed(n, dlerror());
      else fprintf(out, "loads %d\n", n);
    }
    fflush(out);
    maps();
  }
  if (global && info && used && optional) {
    size_t size = 0, align = 0;
    info(&size, &align);
    fprintf(out, "tls %zu %zu %zu %zu\n", size, align, *(size_t *)(global + atoi(used)), *(size_t *)(global + atoi(optional)));
  }
  fclose(out);
  _Exit(0);
}

#ifdef SHIM
__attribute__((constructor)) static void shim(void) {
  const char *steps = getenv("DLWHY_STEPS"), *report = getenv("DLWHY_REPORT");
  if (steps && report) _Exit(work(steps, report, getenv("DLWHY_USED"), getenv("DLWHY_OPTIONAL")));
}
#else
int main(int argc, char **argv) {
  return argc < 3 ? 99 : work(argv[1], argv[2], argc > 4 ? argv[3] : 0, argc > 4 ? argv[4] : 0);
}
#endif
