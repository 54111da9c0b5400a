# Completion of clusterctl for fish. To be installed as share/fish/vendor_completions.d/clusterctl.fish, or, for one person, in
# ~/.config/fish/completions. Asks the command itself, in click's protocol, so that it never names what is not there.

function __clusterctl_words
    set -l answer (env COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) _CLUSTERCTL_COMPLETE=fish_complete clusterctl 2>/dev/null)
    for line in $answer
        set -l parts (string split -m 1 , -- $line)
        switch $parts[1]
            case plain
                echo $parts[2]
            case file
                __fish_complete_path $parts[2]
            case dir
                __fish_complete_directories $parts[2]
        end
    end
end

complete --command clusterctl --no-files --arguments "(__clusterctl_words)"
