# Written by ./dev docs from src/dlwhy/cli/arguments.py; do not edit.

_dlwhy() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command="" word
    # bash cuts --format=json into three words.
    if [[ $cur == = ]]; then cur=""; elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in
            check|tls|tree|diff|capture|unresolved|floor) command=$word; break ;;
        esac
    done
    COMPREPLY=()
    compopt -o filenames 2>/dev/null
    case $prev in
        --cpu) mapfile -t COMPREPLY < <(compgen -W "x86-64 x86-64-v2 x86-64-v3 x86-64-v4 haswell xeon_phi avx512_1 i586 i686 i686-sse2 armv8-a armv8.1-a armv7-a armv7-a-neon power8 power9 power10 z196 zEC12 z13 z14 z15 z16 z17 rv64gc" -- "$cur"); return ;;
        --format) mapfile -t COMPREPLY < <(compgen -W "text json" -- "$cur"); return ;;
        --color) mapfile -t COMPREPLY < <(compgen -W "auto always never" -- "$cur"); return ;;
        --debug-dir|--cwd|--sysroot|--library-path) _dlwhy_directories; return ;;
        --lock|--loader|--caller|--map|--old-lock|--old-map|--with|-o) _dlwhy_files; return ;;
        --host) _dlwhy_hosts; return ;;
        --on|--env|--libc|-o) _dlwhy_nothing; return ;;
    esac
    if [[ $cur == -* ]]; then
        case $command in
            check) word="-h --help --each --on --lock --debug-dir --host --env --clear-env --cwd --sysroot --loader --library-path --libc --secure --caller --cpu --format -o --color -v --verbose -q --quiet" ;;
            tls) word="-h --help --sysroot --no-code --map --debuginfod --lock --debug-dir --format -o --color -v --verbose -q --quiet" ;;
            tree) word="-h --help --host --env --clear-env --cwd --sysroot --loader --library-path --libc --secure --caller --cpu --format -o --color -v --verbose -q --quiet" ;;
            diff) word="-h --help --on --no-code --debug-dir --lock --map --old-lock --old-map --host --env --clear-env --cwd --sysroot --loader --library-path --libc --secure --caller --cpu --format -o --color -v --verbose -q --quiet" ;;
            capture) word="-h --help --with --with-all -o --env --clear-env --cwd --sysroot --loader --library-path --libc --secure --caller --cpu" ;;
            unresolved) word="-h --help --env --clear-env --cwd --sysroot --loader --library-path --libc --secure --cpu --format -o --color -v --verbose -q --quiet" ;;
            floor) word="-h --help --format -o --color -v --verbose -q --quiet" ;;
            *) word="-h --help --version" ;;
        esac
    elif [[ -z $command ]]; then
        word="check tls tree diff capture unresolved floor"
    else
        _dlwhy_files
        return
    fi
    mapfile -t COMPREPLY < <(compgen -W "$word" -- "$cur")
}
_dlwhy_files() { mapfile -t COMPREPLY < <(compgen -f -- "$cur"); }
_dlwhy_directories() { mapfile -t COMPREPLY < <(compgen -d -- "$cur"); }
_dlwhy_hosts() { mapfile -t COMPREPLY < <(compgen -W plain -c -f -- "$cur" | sort -u); }
_dlwhy_nothing() { :; }
complete -F _dlwhy dlwhy
