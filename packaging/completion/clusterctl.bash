# Completion of clusterctl for bash (4.4 or newer). To be installed as share/bash-completion/completions/clusterctl; or, for one
# person, `. clusterctl.bash` in ~/.bashrc. Asks the command itself, in click's protocol, so that it never names what is not there.

_clusterctl() {
    local kind value
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            file) compopt -o default ;;
            dir) compopt -o dirnames ;;
        esac
    done < <(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" _CLUSTERCTL_COMPLETE=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F _clusterctl clusterctl
