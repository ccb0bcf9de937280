# A server under load; what it holds at the end is what its clients have put there.
"$@" redis-server --port 0 --unixsocket "$PWD/s" --save '' --appendonly no --io-threads 2 > log 2>&1 &
server=$!
tries=0; until redis-cli -s s ping > /dev/null 2>&1 || [ $((tries += 1)) -gt 300 ]; do sleep 0.1; done
redis-benchmark -s s -q -n 4000 -c 8 -t set,get,incr,lpush,lrange_100,sadd,zadd,mset > load 2>&1; echo "load $?"
seq 1 2000 | sed 's/.*/zadd z & m&/' | redis-cli -s s > /dev/null
for ask in 'get counter:__rand_int__' 'llen mylist' 'scard myset' 'zcard z' 'zrange z 700 705' \
    "eval return(redis.sha1hex(table.concat(redis.call('zrange','z',0,-1)))) 0"; do
    redis-cli -s s $ask
done
redis-cli -s s shutdown nosave
wait $server; echo "server $?"
