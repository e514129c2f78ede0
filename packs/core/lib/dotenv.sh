# Reads the parameters of an action from standard input: lines of key='value', a quote in a value as '\''.
# Values may hold line breaks, so the text is taken apart by hand; nothing in it is ever evaluated.
#
# read_parameters FUNCTION calls FUNCTION key value for every parameter. POSIX sh, built-ins only.

read_parameters() {
    _key=
    while IFS= read -r _line || [ -n "$_line" ]; do
        if [ -z "$_key" ]; then
            case $_line in
            *=\'*) ;;
            *) continue ;;
            esac
            _key=${_line%%=*}
            _value=
            _line=${_line#*=\'}
        fi
        # A quote inside a value never stands alone: a line ends the value if its last quote is not part of '\''.
        case $_line in
        *"'\\''") _value="$_value$_line
" ;;
        *\')
            _unquote "$_value${_line%\'}"
            "$1" "$_key" "$_value"
            _key=
            ;;
        *) _value="$_value$_line
" ;;
        esac
    done
    [ -z "$_key" ] || {
        echo "the value of the parameter $_key has no end" >&2
        return 65
    }
}

# Leaves the text with every '\'' as a plain quote in _value.
_unquote() {
    _rest=$1
    _value=
    while :; do
        case $_rest in
        *"'\\''"*)
            _value="$_value${_rest%%"'\\''"*}'"
            _rest=${_rest#*"'\\''"}
            ;;
        *) break ;;
        esac
    done
    _value=$_value$_rest
}
