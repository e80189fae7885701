#!/bin/sh
# The whole way of a job with curl. Usage:
#
#     sh examples/curl.sh train.csv [heldout.csv]
#
# LUTHIER_BASE_URL and LUTHIER_API_KEY say which service; without them it is that of
# `luthier-server up` in this folder. python3 picks members out of JSON.
set -eu

training=${1:?usage: sh examples/curl.sh train.csv [heldout.csv]}
validation=${2:-}
data=${LUTHIER_DATA_DIR:-luthier-data}
url=${LUTHIER_BASE_URL:-$(cat "$data/url")/v1}
key=${LUTHIER_API_KEY:-$(cat "$data/api_key")}

# call PATH [curl's options]: the answer's body; an error's body is shown and ends the script.
call() {
    path=$1
    shift
    body=$(curl --silent --show-error --fail-with-body \
        --header "Authorization: Bearer $key" "$@" "$url$path") || {
        echo "$body" >&2
        return 1
    }
    echo "$body"
}

# pick DOCUMENT EXPRESSION: evaluate the expression on `it`, the JSON document.
pick() {
    echo "$1" | python3 -c "import json, sys; it = json.load(sys.stdin); print($2)"
}

upload() {
    file=$(call /files --form purpose=fine-tune --form "file=@$1")
    pick "$file" 'it["id"]'
}

training_file=$(upload "$training")
validation_file=null
if [ -n "$validation" ]; then
    validation_file=\"$(upload "$validation")\"
fi

answer=$(call /fine_tuning/jobs --header "Content-Type: application/json" --data @- <<END
{
    "model": "all-MiniLM-L6-v2",
    "task": "text-classification",
    "training_file": "$training_file",
    "validation_file": $validation_file,
    "suffix": "example",
    "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}}
}
END
)
job=$(pick "$answer" 'it["id"]')
echo "submitted $job"

while :; do
    answer=$(call "/fine_tuning/jobs/$job")
    pick "$answer" 'it["status"], it.get("phase") or "", it.get("progress") or ""'
    case $(pick "$answer" 'it["status"]') in
        succeeded) break ;;
        failed | cancelled)
            pick "$answer" '(it["error"] or {}).get("message", "no reason given")' >&2
            exit 1
            ;;
    esac
    sleep 2
done

events=$(call "/fine_tuning/jobs/$job/events?limit=5")
pick "$events" '"\n".join(event["message"] for event in reversed(it["data"]))'

# A model's id holds colons and perhaps slashes: in a path it is percent-encoded.
model=$(pick "$answer" '__import__("urllib.parse").parse.quote(it["fine_tuned_model"], "")')
files=$(call "/models/$model/files")
pick "$files" '"\n".join(file["path"] for file in it["data"])' | while read -r path; do
    # --continue-at - goes on where an interrupted download stopped
    curl --silent --show-error --fail --header "Authorization: Bearer $key" --create-dirs \
        --continue-at - --output "weights/$path" "$url/models/$model/files/$path"
done
echo "the weights are in weights/"
