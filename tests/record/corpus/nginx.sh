# A server with two workers under load: no request fails, and the content is the file's.
mkdir -p logs tmp; head -c 200000 "$T" > page
cat > conf <<END
daemon off; worker_processes 2; pid $PWD/pid; error_log $PWD/logs/e; events { worker_connections 64; }
user root;
http { access_log off; gzip on; gzip_types text/plain; default_type text/plain;
  client_body_temp_path $PWD/tmp/a; proxy_temp_path $PWD/tmp/b; fastcgi_temp_path $PWD/tmp/c;
  uwsgi_temp_path $PWD/tmp/d; scgi_temp_path $PWD/tmp/e;
  server { listen 127.0.0.1:${PORT:-8917}; root $PWD; } }
END
"$@" nginx -c "$PWD/conf" -p "$PWD" > log 2>&1 &
server=$!
url=http://127.0.0.1:${PORT:-8917}/page
tries=0; until curl -sf -o /dev/null $url || [ $((tries += 1)) -gt 300 ]; do sleep 0.1; done
ab -q -n 2000 -c 8 $url | grep -E '^(Complete|Failed) requests'
ab -q -n 300 -c 4 -H 'Accept-Encoding: gzip' $url | grep -E '^(Complete|Failed) requests'
curl -s $url | cksum; curl -s -H 'Accept-Encoding: gzip' $url | gunzip | cksum; curl -s -o /dev/null -w '%{http_code}\n' ${url}x
kill -QUIT "$(cat pid)"
wait $server; echo "server $?"
