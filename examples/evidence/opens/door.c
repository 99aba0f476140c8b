#include <dlfcn.h>
#define NOTE(text) \
    __asm__(".pushsection .note.dlopen,\"a\",@note\n.balign 4\n.long 4, 2f-1f, 0x407c0c0a\n.asciz \"FDO\"\n" \
            "1: .asciz " text "\n2: .balign 4\n.popsection")
NOTE("\"[{\\\"soname\\\":[\\\"libgomp.so.1\\\"],\\\"feature\\\":\\\"threads\\\",\\\"priority\\\":\\\"recommended\\\","
     "\\\"description\\\":\\\"Opening many doors at once\\\"}]\"");
NOTE("\"[{\\\"soname\\\":[\\\"libbell.so.2\\\",\\\"libbell.so.1\\\"],\\\"feature\\\":\\\"bell\\\","
     "\\\"priority\\\":\\\"suggested\\\",\\\"description\\\":\\\"Ringing first\\\"}]\"");
void *enter(void) { return dlopen("libcellar.so.3", RTLD_LAZY); }
