#include <pthread.h>
#include <stdio.h>
static long work(long n){ long s=0; for(long i=0;i<n;i++) if(i%3) s+=i; else s^=i; return s; }
static void*run(void*p){ return (void*)work(50000+(long)p); }
int main(){ pthread_t t[8]; long s=0; void*r; for(long i=0;i<8;i++) pthread_create(&t[i],0,run,(void*)i); for(int i=0;i<8;i++){pthread_join(t[i],&r); s+=(long)r;} printf("%ld\n",s); }
