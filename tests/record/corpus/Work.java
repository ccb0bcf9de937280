import java.util.*;
import java.util.concurrent.*;

public class Work {
    static long work(int n) {
        Map<Integer, Long> seen = new HashMap<>();
        long s = 0;
        for (int i = 0; i < n; i++) {
            seen.merge(i % 977, (long) i, Long::sum);
            s = (s * 31 + seen.get(i % 977)) % 65521;
            if (i % 1000 == 0)
                try {
                    Object o = i % 2000 == 0 ? null : "x";
                    s += o.hashCode();
                } catch (NullPointerException e) {
                    s += 7;
                }
        }
        return s;
    }

    public static void main(String[] arguments) throws Exception {
        int n = arguments.length > 0 ? Integer.parseInt(arguments[0]) : 400000;
        ExecutorService pool = Executors.newFixedThreadPool(3);
        List<Future<Long>> parts = new ArrayList<>();
        for (int i = 0; i < 6; i++) {
            int size = n + i;
            parts.add(pool.submit(() -> work(size)));
        }
        for (Future<Long> part : parts)
            System.out.println(part.get());
        pool.shutdown();
    }
}
